"""Signatures, duplicates and cleaning: what is removed, from where, and that a new shard changes no older list."""

from pathlib import Path

import polars as pl
import pytest

from instpt_assets.corpus.cleaning import clean
from instpt_assets.corpus.duplicates import find_duplicates
from instpt_assets.corpus.signatures import shingles, write_signatures
from instpt_assets.recipe.corpora import Cleaning, Deduplication

RULES = Deduplication(num_permutations=128, shingle_words=3, threshold=0.7)
ALICE = " ".join(f"alice{i}" for i in range(200))
BOB = " ".join(f"bob{i}" for i in range(200))


def near(text: str, changed: int) -> str:
    """The text with its last words changed."""
    words = text.split()
    return " ".join([*words[:-changed], *(f"new{changed}x{i}" for i in range(changed))])


def signed(folder: Path, shard: str, texts: dict[str, str]) -> Path:
    """A shard's raw table and its signatures; the folder of the latter."""
    raw, out = folder / "raw" / shard, folder / "signatures" / shard
    for path in (raw, out):
        path.mkdir(parents=True)
    rows = [{"document_id": key, "text": text, "source": "s", "metadata": "{}"} for key, text in texts.items()]
    pl.DataFrame(rows).write_parquet(raw / "data-00000.parquet")
    assert write_signatures([raw / "data-00000.parquet"], RULES, out=out) == {"num_documents": len(texts)}
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
    assert cleaned["removed_by_reason"] == {"duplicate": 3, "id of another document": 1} and cleaned["warning"] == warning
    reasons = dict(pl.read_parquet(tmp_path / "clean/removed.parquet").iter_rows())
    assert reasons["c/1"] == "id of another document: ids must be unique in a corpus" and reasons["c/2"] == "duplicate: of 'c/2'"


def test_signatures_estimate_jaccard_and_follow_the_seed(tmp_path: Path) -> None:
    folder = signed(tmp_path, "c--a", {"c/1": ALICE, "c/2": near(ALICE, 40), "c/3": "few words"})
    table = pl.read_parquet(folder / "data-00000.parquet")
    assert table.columns == ["document_id", "content_hash", "signature"]
    first, second, _ = table["signature"].to_list()
    a, b = shingles(ALICE, 3), shingles(near(ALICE, 40), 3)
    estimated = sum(x == y for x, y in zip(first, second, strict=True)) / len(first)
    assert estimated == pytest.approx(len(a & b) / len(a | b), abs=0.12)
    (tmp_path / "other").mkdir()
    write_signatures([tmp_path / "raw/c--a/data-00000.parquet"], RULES.model_copy(update={"seed": 2}), out=tmp_path / "other")
    assert pl.read_parquet(tmp_path / "other/data-00000.parquet")["signature"].to_list()[0] != first


def test_texts_shorter_than_a_shingle_count_whole() -> None:
    assert shingles("Two Words!", 3) == {"two words!"}
    assert shingles("One two  three, four", 3) == {"one two three", "two three four"}


def test_cleaning_keeps_rows_unchanged_and_records_what_it_removes(tmp_path: Path) -> None:
    texts = {"c/1": ALICE, "c/2": "short", "c/3": ALICE + " and more", "c/4": BOB}
    signed(tmp_path, "c--a", texts)
    pl.DataFrame({"document_id": ["c/4"], "duplicate_of": ["d/7"], "similarity": [0.9]}).write_parquet(tmp_path / "list.parquet")
    (tmp_path / "out").mkdir()
    raw = tmp_path / "raw/c--a/data-00000.parquet"
    statistics = clean([raw], tmp_path / "list.parquet", Cleaning(min_characters=6, max_characters=len(ALICE)), out=tmp_path / "out")
    assert pl.read_parquet(tmp_path / "out/data-*.parquet").equals(pl.read_parquet(raw).head(1))
    removed = pl.read_parquet(tmp_path / "out/removed.parquet")
    assert removed.columns == ["document_id", "reason"]
    assert [reason.split(":")[0] for reason in removed["reason"]] == ["too short", "too long", "duplicate"]
    assert statistics["num_read"] == 4 == statistics["num_documents"] + statistics["num_removed"]
