"""Mixtures that extend earlier budgets, pack without cutting, hold documents out, or take some corpora each way."""

import json
from collections import Counter
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from instpt_assets.mixture.documents import Documents, hold_out
from instpt_assets.mixture.drawing import Drawing
from instpt_assets.mixture.mix import build_mixture
from instpt_assets.mixture.row_index import Indices, RowIndex
from instpt_assets.recipe.arms import Component
from instpt_assets.store.preview import PREVIEW
from instpt_assets_tests.mixture.synthetic import rows

LENGTH, BATCH = 128, 1024
CORPUS = Component(component="corpus")
AUGMENTED = Component(component="augmented", pair_set="synthesized")
RAW = Component(component="raw")


def document_ids(shard: int, count: int) -> np.ndarray:
    return (np.arange(count) + 1_000_000 * (shard + 1)).astype(np.uint64)


@pytest.fixture
def indices() -> dict[tuple[str, str], Callable[[], RowIndex]]:
    """Four shards, two of news and two of papers, of 300 documents; the first 90 of each in texts of three; 60 instructions."""
    draw = np.random.default_rng(5)
    found = {}
    for number, shard in enumerate(("news--0", "news--1", "papers--0", "papers--1")):
        ids = document_ids(number, 300)
        found["tokenized_raw", shard] = rows(draw.integers(2, 200, 300), ids)
        found["synthesized/tokenized_augmented", shard] = rows(draw.integers(50, 600, 30), ids[:90].reshape(30, 3).tolist())
    kinds = ["tuning", "general"] * 30
    found["tokenized_instructions", "all"] = rows(draw.integers(5, 90, 60), [[]] * 60, kinds)
    return found


def build(out: Path, mixture: list[Component], indices: Indices, num_steps: int = 40, **changes: Any) -> dict[str, Any]:
    arguments = {"seed": 0, "token_budget": num_steps * BATCH, "batch_tokens": BATCH, "sequence_length": LENGTH} | changes
    return build_mixture(mixture, indices, out=out, **arguments)


def drawn(out: Path) -> list[tuple[str, str, int]]:
    sources = json.loads((out / "sources.json").read_text())["sources"]
    return [(sources[s]["asset"], sources[s]["partition"], row) for s, row, begin, _ in np.load(out / "pieces.npy").tolist() if begin == 0]


@pytest.mark.parametrize("packing", ["concatenate", "best_fit"])
@pytest.mark.parametrize(
    "mixture",
    [
        [CORPUS],
        [CORPUS, Component(component="tuning", repetition=4)],
        [Component(component="corpus", pair_set="synthesized", ratio=0.5), Component(component="general", ratio=0.5)],
    ],
)
def test_a_larger_budget_begins_with_the_sequences_of_the_earlier_ones(
    packing: str, mixture: list[Component], indices: Indices, tmp_path: Path
) -> None:
    names = ("pieces.npy", "bounds.npy")
    build(tmp_path / "first", mixture, indices, 20, packing=packing)
    build(tmp_path / "second", mixture, indices, 30, packing=packing, extended_from=[20 * BATCH])
    statistics = build(tmp_path / "third", mixture, indices, 150, packing=packing, extended_from=[20 * BATCH, 30 * BATCH])
    for earlier, steps in (("first", 20), ("second", 30)):
        begun, whole = ([np.load(tmp_path / arm / name) for name in names] for arm in (earlier, "third"))
        sequences = steps * BATCH // LENGTH
        assert len(begun[1]) == sequences + 1
        assert begun[1].tobytes() == whole[1][: sequences + 1].tobytes()
        assert begun[0].tobytes() == whole[0][: begun[1][-1]].tobytes()
    # Over the whole, amounts are those of the recipe and no document is drawn twice before all were drawn once.
    alone = build(tmp_path / "alone", mixture, indices, 150, packing=packing)
    for label, part in statistics["components"].items():
        assert part["repetition"] == pytest.approx(alone["components"][label]["repetition"], rel=0.02)
    if (packing, mixture) == ("concatenate", [CORPUS]):
        times = Counter(drawn(tmp_path / "third"))
        assert len(times) == 4 * 300
        assert set(times.values()) == {1, 2}


def test_best_fit_makes_exactly_the_sequences_of_the_budget_and_cuts_only_longer_documents(indices: Indices, tmp_path: Path) -> None:
    statistics = build(tmp_path / "out", [CORPUS, Component(component="tuning", ratio=0.2)], indices, packing="best_fit")
    pieces, bounds = np.load(tmp_path / "out/pieces.npy"), np.load(tmp_path / "out/bounds.npy")
    assert len(bounds) - 1 == 40 * BATCH // LENGTH
    lengths = [indices[source["asset"], source["partition"]]().num_tokens for source in sources(tmp_path / "out")]
    whole = np.array([lengths[source][row] for source, row in zip(pieces["source"], pieces["row"], strict=True)])
    short = whole <= LENGTH
    assert (pieces["count"][short] == whole[short]).all()
    assert not short.all()
    assert 0 < statistics["padding_tokens"] < 0.02 * statistics["num_tokens"]
    # Shares are of the tokens trained on, so padding spoils no ratio.
    assert statistics["components"]["tuning"]["num_tokens"] == pytest.approx(0.2 * statistics["num_trained_tokens"], abs=90)
    # Sequences of long documents, which packing makes first, are spread over the training.
    full = np.flatnonzero(np.diff(bounds) == 1) / len(bounds)
    assert 0.4 < full.mean() < 0.6


@pytest.mark.parametrize("size", [7, 100])
def test_documents_packed_in_groups_make_the_same_number_of_sequences(
    size: int, indices: Indices, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Groups may make a few sequences more or less than all documents together."""
    mixture = [CORPUS, Component(component="tuning", ratio=0.2)]
    monkeypatch.setattr("instpt_assets.mixture.stretches._PACKED_TOGETHER", size)
    statistics = build(tmp_path / "out", mixture, indices, packing="best_fit", extended_from=[15 * BATCH])
    assert len(np.load(tmp_path / "out/bounds.npy")) - 1 == 40 * BATCH // LENGTH
    trained, cut = statistics["num_trained_tokens"], statistics["cut_tokens"]
    assert trained == np.load(tmp_path / "out/pieces.npy")["count"].sum() == 40 * BATCH - statistics["padding_tokens"]
    tuning = statistics["components"]["tuning"]
    assert tuning["num_tokens"] + tuning["cut_tokens"] == pytest.approx(0.2 * (trained + cut), abs=90)
    times = Counter(row for _, partition, row in drawn(tmp_path / "out") if partition == "papers--1")
    assert max(times.values()) == 1


def test_pieces_of_many_passes_are_counted_as_if_each_document_were_cut() -> None:
    sizes = [1, 5, LENGTH - 1, LENGTH, LENGTH + 1, 2 * LENGTH, 3 * LENGTH + 40]
    indices = {("tokenized_raw", "c--0"): rows(sizes, document_ids(0, len(sizes)))}
    drawing = Drawing([CORPUS], Documents([CORPUS], indices, hold_out(indices, 0), seed=0))
    for begin, end in combinations(range(40), 2):
        tokens = [drawing.documents.num_tokens[place] for _, places in drawing.passes[0].draws(begin, end) for place in places]
        expected = Counter(min(LENGTH, size - first) for size in tokens for first in range(0, size, LENGTH))
        counted = drawing.pieces_between((begin,), (end,), LENGTH)
        assert {length: count for length, count in enumerate(counted.tolist()) if count} == expected


def test_sequences_too_many_are_left_out_with_the_fewest_tokens_and_told(tmp_path: Path) -> None:
    """Every document fills three sequences and a bit: no number of them makes exactly 8 sequences."""
    indices = {("tokenized_raw", "c--0"): rows([3 * LENGTH + 40] * 20, document_ids(0, 20))}
    statistics = build(tmp_path / "out", [CORPUS], indices, 1, packing="best_fit")
    pieces = np.load(tmp_path / "out/pieces.npy")
    assert len(np.load(tmp_path / "out/bounds.npy")) - 1 == 8
    assert statistics["cut_tokens"] == statistics["num_documents"] * (3 * LENGTH + 40) - pieces["count"].sum() > 0
    assert statistics["num_trained_tokens"] == pieces["count"].sum()
    assert statistics["padding_tokens"] < LENGTH


def test_documents_held_out_stand_in_no_arm_and_are_the_same_in_all(indices: Indices, tmp_path: Path) -> None:
    mixtures = {
        "vanilla": [CORPUS],
        "instruct": [Component(component="corpus", pair_set="synthesized"), Component(component="tuning", repetition=1)],
        "augmented": [AUGMENTED],
        "tuning_only": [Component(component="tuning")],
    }
    held_out: set[tuple[tuple[str, int], ...]] = set()
    for arm, mixture in mixtures.items():
        out = tmp_path / arm
        statistics = build(out, mixture, indices, held_out_documents=25)
        pieces, bounds = np.load(out / "held_out_pieces.npy"), np.load(out / "held_out_bounds.npy")
        names = sources(out)
        assert {names[source]["asset"] for source in pieces["source"]} == {"tokenized_raw"}
        found = {(names[source]["partition"], int(row)) for source, row in zip(pieces["source"], pieces["row"], strict=True)}
        assert len(found) == 25 == statistics["num_held_out_documents"]
        held_out.add(tuple(sorted(found)))
        lengths = {key: read().num_tokens for key, read in indices.items()}
        assert pieces["count"].sum() == sum(lengths["tokenized_raw", shard][row] for shard, row in found)
        assert np.add.reduceat(pieces["count"], bounds[:-1]).max() <= LENGTH
        hashes = {int(indices["tokenized_raw", shard]().documents[row]) for shard, row in found}
        for asset, partition, row in drawn(out):
            index = indices[asset, partition]()
            first = int(index.num_documents[:row].sum())
            assert not hashes & set(index.documents[first : first + int(index.num_documents[row])].tolist())
    assert len(held_out) == 1
    table = pl.read_parquet(tmp_path / "instruct/data-00000.parquet").filter(component="corpus (synthesized)")
    by_asset = dict(table.group_by("asset").agg(pl.col("held_out_documents").sum()).iter_rows())
    assert by_asset["tokenized_raw"] == 25
    assert 0 < by_asset["synthesized/tokenized_augmented"] <= 25  # texts that hold one
    with pytest.raises(ValueError, match=r"held_out_documents 1,200: the arm's shards have 1,200 raw documents"):
        build(tmp_path / "all", [CORPUS], indices, held_out_documents=1200)


def test_components_take_their_own_corpora_each_in_its_share(indices: Indices, tmp_path: Path) -> None:
    news = Component(component="corpus", pair_set="synthesized", corpora=("news",), ratio=0.25)
    papers = Component(component="corpus", corpora=("papers",), ratio=0.75)
    statistics = build(tmp_path / "out", [news, papers], indices)
    assert {label: round(part["share"], 2) for label, part in statistics["components"].items()} == {
        "corpus (synthesized) of news": 0.25,
        "corpus of papers": 0.75,
    }
    taken = {(asset.split("/")[-1], partition.split("--")[0]) for asset, partition, _ in drawn(tmp_path / "out")}
    assert taken == {("tokenized_raw", "news"), ("tokenized_augmented", "news"), ("tokenized_raw", "papers")}


def test_raw_leaves_out_what_an_augmented_component_holds_and_augmented_takes_texts_alone(indices: Indices, tmp_path: Path) -> None:
    only = build(tmp_path / "only", [AUGMENTED], indices)
    assert {asset for asset, _, _ in drawn(tmp_path / "only")} == {"synthesized/tokenized_augmented"}
    assert only["components"]["augmented (synthesized)"]["available_documents"] == 120
    both = build(tmp_path / "both", [RAW.model_copy(update={"ratio": 0.5}), AUGMENTED.model_copy(update={"ratio": 0.5})], indices)
    assert both["components"]["raw"]["augmented_documents"] == 4 * 90
    assert min(row for asset, _, row in drawn(tmp_path / "both") if asset == "tokenized_raw") >= 90
    everywhere = {key: read for key, read in indices.items() if key[1] != "papers--0"} | {
        ("synthesized/tokenized_augmented", shard): rows([9] * 300, document_ids(number, 300))
        for number, shard in enumerate(("news--0", "news--1", "papers--0", "papers--1"))
        if shard != "papers--0"
    }
    with pytest.raises(ValueError, match=r"component 'raw' holds no document: 900 of its documents stand in augmented texts"):
        build(tmp_path / "none", [RAW, AUGMENTED.model_copy(update={"ratio": 0.5})], everywhere)


def test_the_page_tells_shares_passes_and_what_was_left_out(indices: Indices, tmp_path: Path) -> None:
    mixture = [CORPUS, Component(component="tuning", ratio=0.25)]
    statistics = build(tmp_path / "out", mixture, indices, packing="best_fit", held_out_documents=7)
    page = (tmp_path / "out" / PREVIEW).read_text()
    assert f"| **corpus** | {statistics['components']['corpus']['share']:.2%} | ███████████████░░░░░ |" in page
    assert "| █████░░░░░░░░░░░░░░░ |" in page  # a quarter
    assert f"| *padding* | {statistics['padding_tokens'] / 40960:.2%} |" in page
    assert "7 raw documents" in page
    assert "| papers--1 |" in page


def sources(out: Path) -> list[dict[str, str]]:
    return json.loads((out / "sources.json").read_text())["sources"]


def test_documents_whose_text_holds_one_held_out_stand_raw_and_shards_of_which_nothing_is_left_are_not_named(
    indices: dict[tuple[str, str], Callable[[], RowIndex]], tmp_path: Path
) -> None:
    """Where all documents are augmented, training fetches no token of raw ones but of those shards."""
    for number, shard in enumerate(("news--0", "news--1", "papers--0", "papers--1")):
        ids = document_ids(number, 300)
        indices[("synthesized/tokenized_augmented", shard)] = rows([400] * 100, ids.reshape(100, 3).tolist())
    statistics = build(tmp_path / "out", [Component(component="corpus", pair_set="synthesized")], indices, 200, held_out_documents=2)
    part = statistics["components"]["corpus (synthesized)"]
    assert part["repetition"] > 1
    named = [(source["asset"], source["partition"]) for source in sources(tmp_path / "out")]
    pieces = np.load(tmp_path / "out/held_out_pieces.npy")
    held_out = {(*named[source], row) for source, row in zip(pieces["source"], pieces["row"].tolist(), strict=True)}
    texts = {(shard, row // 3) for _, shard, row in held_out}
    assert part["augmented_documents"] == 4 * 300 - 3 * len(texts)
    assert part["held_out_documents"] == len(held_out) + len(texts)
    trained = set(drawn(tmp_path / "out"))
    siblings = {("tokenized_raw", shard, 3 * row + place) for shard, row in texts for place in range(3)} - held_out
    assert {each for each in trained if each[0] == "tokenized_raw"} == siblings
    assert not {each[1:] for each in trained if each[0] != "tokenized_raw"} & texts
    assert {source for source in named if source[0] == "tokenized_raw"} == {each[:2] for each in held_out}


def test_far_too_little_data_is_told_at_once(tmp_path: Path) -> None:
    """However many passes the budget would take: none is made."""
    indices = {("tokenized_raw", "c--0"): rows([10] * 20, document_ids(0, 20))}
    for packing in ("concatenate", "best_fit"):
        with pytest.raises(ValueError, match=r"component 'corpus' has 20 documents with 200 tokens and would need .* add shards"):
            build(tmp_path / packing, [CORPUS], indices, 10**9, packing=packing)
