"""Signatures, duplicates and cleaning: what is removed, from where, and that a new shard changes no older list."""

import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from instpt_assets.corpus import duplicates
from instpt_assets.corpus.candidates import bands_and_rows, share_a_band
from instpt_assets.corpus.cleaning import clean
from instpt_assets.corpus.duplicates import _Keys, find_duplicates
from instpt_assets.corpus.signatures import write_signatures
from instpt_assets.recipe.cleaning import Cleaning
from instpt_assets.recipe.deduplication import Deduplication

RULES = Deduplication(num_permutations=128, shingle_words=3, threshold=0.7)
ALICE = " ".join(f"alice{i}" for i in range(200))
BOB = " ".join(f"bob{i}" for i in range(200))


def near(text: str, changed: int) -> str:
    """The text with its last words changed."""
    words = text.split()
    return " ".join([*words[:-changed], *(f"new{changed}x{i}" for i in range(changed))])


def signed(folder: Path, shard: str, texts: dict[str, str], rules: Deduplication = RULES) -> Path:
    """A shard's raw table and its signatures; the folder of the latter."""
    raw, out = folder / "raw" / shard, folder / "signatures" / shard
    for path in (raw, out):
        path.mkdir(parents=True)
    rows = [{"document_id": key, "text": text, "source": "s", "metadata": "{}"} for key, text in texts.items()]
    pl.DataFrame(rows, schema=dict.fromkeys(["document_id", "text", "source", "metadata"], pl.String)).write_parquet(
        raw / "data-00000.parquet"
    )
    assert write_signatures([raw / "data-00000.parquet"], rules, out=out) == {"num_documents": len(texts)}
    return out


def lists(folder: Path, signatures: dict[str, Path], name: str) -> dict[str, list[tuple[str, str]]]:
    out = folder / name
    out.mkdir()
    find_duplicates(signatures, RULES, out=out)
    found = {shard: pl.read_parquet(out / "removed" / f"{shard}.parquet") for shard in signatures}
    return {shard: list(zip(table["document_id"], table["duplicate_of"], strict=True)) for shard, table in found.items()}


def test_exact_and_near_duplicates_of_earlier_documents_are_removed(tmp_path: Path) -> None:
    signatures = {
        "c--b": signed(tmp_path, "c--b", {"c/1": ALICE, "c/2": ALICE.upper(), "c/3": BOB}),
        "c--a": signed(tmp_path, "c--a", {"c/4": near(ALICE, 10), "c/5": near(ALICE, 150), "c/6": BOB}),
    }
    assert lists(tmp_path, signatures, "out") == {"c--b": [("c/2", "c/1")], "c--a": [("c/4", "c/1"), ("c/6", "c/3")]}
    similarity = pl.read_parquet(tmp_path / "out/removed/c--a.parquet")["similarity"].to_list()
    assert 0.7 <= similarity[0] < 1 and similarity[1] == 1


def test_a_new_shard_leaves_older_lists_byte_identical(tmp_path: Path) -> None:
    signatures = {
        "c--z": signed(tmp_path, "c--z", {"c/1": ALICE}),
        "c--y": signed(tmp_path, "c--y", {"c/2": near(ALICE, 5), "c/3": BOB}),
        "c--x": signed(tmp_path, "c--x", {"c/9": "nothing like it at all in here"}),
    }
    lists(tmp_path, signatures, "before")
    signatures["c--a"] = signed(tmp_path, "c--a", {"c/4": ALICE, "c/5": near(BOB, 3)})
    after = lists(tmp_path, signatures, "after")
    assert after["c--a"] == [("c/4", "c/1"), ("c/5", "c/3")] and after["c--x"] == []
    for shard in ("c--z", "c--y", "c--x"):
        before, after_it = (tmp_path / when / "removed" / f"{shard}.parquet" for when in ("before", "after"))
        assert before.read_bytes() == after_it.read_bytes()


def test_what_is_removed_removes_nothing(tmp_path: Path) -> None:
    # 2 is near 1, 3 is near 2 but not near 1: 3 stays.
    signatures = {"c--a": signed(tmp_path, "c--a", {"c/1": ALICE, "c/2": near(ALICE, 20), "c/3": near(near(ALICE, 20), 60)})}
    assert lists(tmp_path, signatures, "out")["c--a"] == [("c/2", "c/1")]


def test_another_text_under_an_id_of_an_earlier_shard_is_removed_counted_and_warned_of(tmp_path: Path) -> None:
    signatures = {
        "c--a": signed(tmp_path, "c--a", {"c/1": ALICE, "c/2": near(BOB, 100)}),
        "c--b": signed(tmp_path, "c--b", {"c/1": BOB, "c/2": near(BOB, 100), "c/3": ALICE, "c/4": near(ALICE, 10)}),
    }
    (tmp_path / "out").mkdir()
    statistics = find_duplicates(signatures, RULES, out=tmp_path / "out")
    warning = statistics.pop("warning")
    assert warning == "1 documents have the id of another one and are left out: ids must be unique in a corpus, or drop id_field"
    assert statistics == {"num_documents": 6, "num_removed": 4, "num_exact": 2, "num_same_id": 1, "num_near": 1}

    (tmp_path / "clean").mkdir()
    raw, removal_list = tmp_path / "raw/c--b/data-00000.parquet", tmp_path / "out/removed/c--b.parquet"
    cleaned = clean([raw], removal_list, Cleaning(min_characters=1), out=tmp_path / "clean")
    assert cleaned["removed_by_reason"] == {"duplicate": 3, "id of another document": 1}
    assert cleaned["warning"].startswith(f"{warning}. Nothing is left: all 4 documents were removed")
    reasons = dict(pl.read_parquet(tmp_path / "clean/removed.parquet", columns=["document_id", "reason"]).iter_rows())
    assert (
        reasons["c/1"] == "id of another document: ids must be unique in a corpus"
        and reasons["c/2"] == "duplicate: of 'c/2', the same text"
    )


def test_signatures_estimate_jaccard_and_follow_the_seed(tmp_path: Path) -> None:
    folder = signed(tmp_path, "c--a", {"c/1": ALICE, "c/2": near(ALICE, 40), "c/3": "few words"})
    table = pl.read_parquet(folder / "data-00000.parquet")
    assert table.columns == ["document_id", "content_hash", "excerpt", "signature"]
    first, second, _ = table["signature"].to_list()
    shared, distinct = 198 - 40, 198 + 40  # of 198 runs of three words each, those up to the first changed word are the same
    estimated = sum(x == y for x, y in zip(first, second, strict=True)) / len(first)
    assert estimated == pytest.approx(shared / distinct, abs=0.12)
    (tmp_path / "other").mkdir()
    write_signatures([tmp_path / "raw/c--a/data-00000.parquet"], RULES.model_copy(update={"seed": 2}), out=tmp_path / "other")
    assert pl.read_parquet(tmp_path / "other/data-00000.parquet")["signature"].to_list()[0] != first


@pytest.mark.parametrize(
    ("switches", "removed"),
    [
        ({"near": False}, [("c/2", "exact"), ("c/1", "same_id")]),
        ({"exact": False, "near": False}, [("c/1", "same_id")]),
    ],
)
def test_each_kind_of_duplicate_can_be_left_in_but_ids_are_always_unique(
    switches: dict[str, bool], removed: list[tuple[str, str]], tmp_path: Path
) -> None:
    rules = RULES.model_copy(update=switches)
    signatures = {
        "c--a": signed(tmp_path, "c--a", {"c/1": ALICE, "c/2": ALICE, "c/3": near(ALICE, 5)}, rules),
        "c--b": signed(tmp_path, "c--b", {"c/1": BOB}, rules),
        "c--empty": signed(tmp_path, "c--empty", {}, rules),
    }
    (tmp_path / "out").mkdir()
    statistics = find_duplicates(signatures, rules, out=tmp_path / "out")
    found = [pl.read_parquet(tmp_path / f"out/removed/{shard}.parquet") for shard in signatures]
    assert [row for table in found for row in table.select("document_id", "kind").iter_rows()] == removed
    assert ("signature" in pl.read_parquet_schema(signatures["c--a"] / "data-00000.parquet")) == rules.near
    assert statistics["num_documents"] == 4 and statistics["num_removed"] == len(removed)
    summary = pl.read_parquet(tmp_path / "out/data-*.parquet")
    assert summary["shard"].to_list() == list(signatures) and summary["num_documents"].to_list() == [3, 1, 0]
    assert [path.name for path in sorted((tmp_path / "out").iterdir())] == ["data-00000.parquet", "duplicates.md", "removed"]


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"near": False, "threshold": 0.7, "seed": 3}, "threshold and seed: for near-duplicates, and near is off"),
        ({"exact": False}, "exact: equal texts resemble each other by any threshold"),
    ],
)
def test_rules_that_would_change_nothing_are_refused(fields: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        Deduplication.model_validate(fields)


def test_the_page_shows_pairs_side_by_side(tmp_path: Path) -> None:
    signatures = {"c--a": signed(tmp_path, "c--a", {"c/1": "ALICE | " + ALICE, "c/2": near("Alice " + ALICE, 12), "c/3": BOB})}
    lists(tmp_path, signatures, "out")
    page = (tmp_path / "out/duplicates.md").read_text()
    (row,) = [line for line in page.splitlines() if "c/2" in line]
    assert "**c/2** Alice alice0" in row and "**c/1** ALICE &#124; alice0" in row and row.index("c/2") < row.index("c/1")


class Clusters(NamedTuple):
    """Signatures with clusters in them, of documents in shards; ids and texts repeat."""

    signatures: "np.ndarray[Any, np.dtype[np.uint32]]"
    ids: list[str]
    texts: list[str]
    cuts: list[int]
    """Where shards begin, beside the first."""


@st.composite
def clusters(draw: st.DrawFn) -> Clusters:
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    number, permutations = draw(st.integers(1, 60)), 16
    roots = random.integers(4, size=number)
    # Chains of resemblance: each takes a random share of its numbers from some document of its cluster before it.
    signatures = random.integers(1 << 32, size=(number, permutations), dtype=np.uint32)
    for document in range(1, number):
        before = np.flatnonzero(roots[:document] == roots[document])
        if len(before):
            taken = random.random(permutations) < random.choice([0.3, 0.6, 0.8, 0.95, 1.0])
            signatures[document, taken] = signatures[random.choice(before), taken]
    ids = [f"c/{random.integers(number * 4)}" for _ in range(number)]
    texts = [f"{random.integers(number * 4):064x}" for _ in range(number)]
    return Clusters(signatures, ids, texts, sorted(draw(st.sets(st.integers(1, number), max_size=3))))


def expected(found: Clusters, rules: Deduplication, bands: int, rows: int) -> list[tuple[int, int, str]]:
    """The rule, document after document against all that stayed: (removed, stays, kind)."""
    stayed: list[int] = []
    removed = []
    for document, signature in enumerate(found.signatures):
        same_text = [other for other in stayed if found.texts[other] == found.texts[document]]
        same_id = [other for other in stayed if found.ids[other] == found.ids[document]]
        near = []
        for other in stayed:
            equal = found.signatures[other] == signature
            shared = any(equal[band * rows : (band + 1) * rows].all() for band in range(bands))
            if shared and equal.mean() >= rules.threshold:
                near.append((-float(equal.mean()), other))
        if same_text or same_id or near:
            kind, other = ("exact", same_text[0]) if same_text else ("same_id", same_id[0]) if same_id else ("near", min(near)[1])
            removed.append((document, other, kind))
        else:
            stayed.append(document)
    return removed


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(found=clusters(), threshold=st.sampled_from([0.3, 0.5, 0.8]), long_bands=st.booleans(), colliding=st.booleans())
def test_the_result_is_that_of_the_rule_document_after_document(
    found: Clusters, threshold: float, long_bands: bool, colliding: bool, tmp_path: Path
) -> None:
    rules = Deduplication(num_permutations=16, threshold=threshold)
    with tempfile.TemporaryDirectory(dir=tmp_path) as folder:
        signatures = {}
        for start, end in pairwise([0, *found.cuts, len(found.ids)]):
            signatures[f"c--{len(signatures)}"] = shard = Path(folder, f"c--{len(signatures)}")
            shard.mkdir()
            column = pa.FixedSizeListArray.from_arrays(pa.array(found.signatures[start:end].ravel()), 16)
            rows = {"document_id": found.ids[start:end], "content_hash": found.texts[start:end], "excerpt": [""] * (end - start)}
            pq.write_table(pa.table({**rows, "signature": column}), shard / "data-00000.parquet", row_group_size=7)
        (out := Path(folder, "out")).mkdir()
        bands, rows = (2, 8) if long_bands else bands_and_rows(threshold, 16)  # long ones miss many pairs that are near enough
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(duplicates, "bands_and_rows", lambda *_: (bands, rows))
            if colliding:  # as if all documents had the same hashes: what is only a candidate removes nothing
                patch.setattr(_Keys, "of", lambda keys, tables, _: np.zeros((keys.near.stop, tables.num_documents), dtype=np.uint64))
            find_duplicates(signatures, rules, out=out)
        tables = [pl.read_parquet(out / "removed" / f"{shard}.parquet") for shard in signatures]
        got = [row for table in tables for row in table.select("document_id", "duplicate_of", "kind").iter_rows()]
    assert got == [(found.ids[removed], found.ids[stays], kind) for removed, stays, kind in expected(found, rules, bands, rows)]


@pytest.mark.parametrize("threshold", [0.4, 0.6, 0.8, 0.9])
def test_pairs_at_the_threshold_are_candidates(threshold: float) -> None:
    bands, rows = bands_and_rows(threshold, 128)
    random = np.random.default_rng(0)
    equal = random.random((20_000, 128)) < threshold
    assert share_a_band(equal, bands, rows).mean() > 0.985
    assert bands * rows <= 128 and 1 - (1 - threshold ** (rows + 1)) ** (128 // (rows + 1)) < 0.99  # no longer bands would do
