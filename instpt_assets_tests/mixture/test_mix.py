"""The mixture: exact accounting, ratios and repetitions, equal budgets, determinism, documents that stand once."""

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from instpt_assets.mixture.arrays import RowWriter
from instpt_assets.mixture.drawing import TooLittleData
from instpt_assets.mixture.mix import build_mixture
from instpt_assets.mixture.mixture_sequences import MixtureSequences
from instpt_assets.mixture.row_index import folder_indices
from instpt_assets.recipe.arms import Component
from instpt_assets.recipe.training import Optimization
from instpt_assets.store.preview import PREVIEW

LENGTH, BATCH = 16, 64
EOS = 0


def write_rows(folder: Path, rows: Sequence[tuple[str, Sequence[str], int]], component: str | None = None) -> Path:
    """Rows (row_id, document_ids, tokens) of random ids above 0."""
    draw = np.random.default_rng(len(rows))
    columns = [] if component is None else [pa.field("component", pa.string())]
    with RowWriter(folder, vocab_size=1000, eos_id=EOS, columns=columns) as writer:
        ids = [draw.integers(1, 1000, size - 1).tolist() for _, _, size in rows]
        names, documents, sizes = zip(*rows, strict=True) if rows else ((), (), ())
        values = {
            "row_id": names,
            "document_ids": documents,
            "num_bytes": [4 * size for size in sizes],
            "component": [component] * len(rows),
        }
        writer.append(*writer.flatten(ids), values)
    return folder


@pytest.fixture
def raw(tmp_path: Path) -> dict[str, Path]:
    sizes = np.random.default_rng(1).integers(2, 40, (3, 50))
    return {
        f"c--{shard}": write_rows(tmp_path / f"raw{shard}", [(f"c--{shard}/{i}", [f"c--{shard}/{i}"], int(n)) for i, n in enumerate(row)])
        for shard, row in enumerate(sizes)
    }


@pytest.fixture
def augmented(tmp_path: Path) -> dict[str, Path]:
    """Texts of two documents each: documents 0 to 19 of every shard."""
    return {
        f"c--{shard}": write_rows(
            tmp_path / f"augmented{shard}",
            [(f"t{shard}/{i}", [f"c--{shard}/{2 * i}", f"c--{shard}/{2 * i + 1}"], 50 + i) for i in range(10)],
        )
        for shard in range(3)
    }


@pytest.fixture
def instructions(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "instructions", [(f"set/{i}", [], 10 + i) for i in range(10)], component="tuning")


def folders(
    raw: Mapping[str, Path], augmented: Mapping[str, Path] | None = None, instructions: Path | None = None
) -> dict[tuple[str, str], Path]:
    found = {("tokenized_raw", shard): folder for shard, folder in raw.items()}
    found |= {("synthesized/tokenized_augmented", shard): folder for shard, folder in (augmented or {}).items()}
    return found | ({("tokenized_instructions", "all"): instructions} if instructions else {})


def build(out: Path, mixture: Sequence[Component], raw: Mapping[str, Path], *, num_steps: int = 20, **changes: Any) -> dict[str, Any]:
    sources = folders(raw, changes.pop("augmented", None), changes.pop("instructions", None))
    arguments = {"seed": 0, "token_budget": num_steps * BATCH, "batch_tokens": BATCH, "sequence_length": LENGTH} | changes
    return build_mixture(mixture, folder_indices(sources), out=out, **arguments)


def corpus(pair_set: str | None = None, **amount: Any) -> Component:
    return Component(component="corpus", pair_set=pair_set, **amount)


def tuning(**amount: Any) -> Component:
    return Component(component="tuning", **amount)


def documents(out: Path) -> list[tuple[str, str, int]]:
    """Those that were drawn, in training order."""
    sources = json.loads((out / "sources.json").read_text())["sources"]
    pieces = np.load(out / "pieces.npy")
    return [(sources[s]["asset"], sources[s]["partition"], int(row)) for s, row, begin, _ in pieces if begin == 0]


def test_every_token_of_the_sequences_is_a_token_of_a_named_row_and_none_is_lost(raw: dict[str, Path], tmp_path: Path) -> None:
    statistics = build(tmp_path / "out", [corpus()], raw)
    sequences = MixtureSequences(tmp_path / "out", folders(raw))
    assert len(sequences) == statistics["num_sequences"] == 20 * BATCH // LENGTH
    stream = np.concatenate([sequences.sequence(index)[0] for index in range(len(sequences))])
    expected = []
    for asset, partition, row in documents(tmp_path / "out"):
        folder = folders(raw)[asset, partition]
        begin, end = np.load(folder / "offsets.npy")[row : row + 2]
        expected.append(np.load(folder / "tokens.npy")[begin:end])
    whole = np.concatenate(expected)
    assert np.array_equal(stream, whole[: 20 * BATCH])
    assert 0 <= len(whole) - 20 * BATCH == statistics["cut_tokens"] < len(expected[-1])


def test_no_token_is_read(raw: dict[str, Path], augmented: dict[str, Path], instructions: Path, tmp_path: Path) -> None:
    mixture = [corpus("synthesized", ratio=0.9), tuning(ratio=0.1, max_repetition=20.0)]
    build(tmp_path / "with", mixture, raw, augmented=augmented, instructions=instructions)
    for folder in folders(raw, augmented, instructions).values():
        (folder / "tokens.npy").unlink()
    build(tmp_path / "without", mixture, raw, augmented=augmented, instructions=instructions)
    assert (tmp_path / "with" / "pieces.npy").read_bytes() == (tmp_path / "without" / "pieces.npy").read_bytes()


def test_the_loss_is_on_all_tokens(raw: dict[str, Path], tmp_path: Path) -> None:
    build(tmp_path / "out", [corpus()], raw)
    ids, labels, _ = MixtureSequences(tmp_path / "out", folders(raw)).sequence(7)
    assert ids.dtype == labels.dtype == np.int64
    assert ids.shape == (LENGTH,)
    assert np.array_equal(ids, labels)
    assert ids is not labels


def test_the_table_accounts_for_the_budget_exactly(raw: dict[str, Path], instructions: Path, tmp_path: Path) -> None:
    statistics = build(tmp_path / "out", [corpus(), tuning(repetition=2)], raw, instructions=instructions)
    table = pl.read_parquet(tmp_path / "out/data-00000.parquet")
    assert table["num_tokens"].sum() == statistics["num_tokens"] == 20 * BATCH
    assert table["num_documents"].sum() == len(documents(tmp_path / "out")) == statistics["num_documents"]
    assert sum(part["num_tokens"] for part in statistics["components"].values()) == 20 * BATCH
    assert sum(part["share"] for part in statistics["components"].values()) == pytest.approx(1)


def test_arms_of_one_budget_train_on_equally_many_tokens(
    raw: dict[str, Path], augmented: dict[str, Path], instructions: Path, tmp_path: Path
) -> None:
    vanilla = build(tmp_path / "vanilla", [corpus()], raw)
    mix = build(tmp_path / "mix", [corpus(), tuning(repetition=1)], raw, instructions=instructions)
    instruct = build(
        tmp_path / "instruct", [corpus("synthesized"), tuning(repetition=1)], raw, augmented=augmented, instructions=instructions
    )
    assert vanilla["num_tokens"] == mix["num_tokens"] == instruct["num_tokens"] == 20 * BATCH
    assert {np.load(tmp_path / arm / "pieces.npy")["count"].sum() for arm in ("vanilla", "mix", "instruct")} == {20 * BATCH}


@pytest.mark.parametrize("token_budget", [1, 95, 97, 160, 1000])
def test_the_budget_is_rounded_to_the_steps_that_training_takes(token_budget: int, raw: dict[str, Path], tmp_path: Path) -> None:
    statistics = build(tmp_path / "out", [corpus()], raw, token_budget=token_budget)
    steps = Optimization(token_budget=token_budget, batch_tokens=BATCH, learning_rate=1e-3).num_steps
    assert (statistics["num_steps"], statistics["num_tokens"]) == (steps, steps * BATCH)


def test_documents_that_the_pair_set_chose_stand_only_in_its_texts(
    raw: dict[str, Path], augmented: dict[str, Path], tmp_path: Path
) -> None:
    statistics = build(tmp_path / "out", [corpus("synthesized")], raw, augmented=augmented, num_steps=200)
    names: Counter[str] = Counter()
    for asset, partition, row in set(documents(tmp_path / "out")):
        folder = folders(raw, augmented)[asset, partition]
        names.update(pl.read_parquet(folder / "data-00000.parquet")["document_ids"][row].to_list())
    assert names == {f"c--{shard}/{i}": 1 for shard in range(3) for i in range(50)}
    assert statistics["components"]["corpus (synthesized)"]["augmented_documents"] == 60
    table = pl.read_parquet(tmp_path / "out/data-00000.parquet").filter(asset="tokenized_raw")
    assert table["augmented_documents"].to_list() == [20, 20, 20]


def test_a_repetition_is_that_many_passes_to_within_one_document(raw: dict[str, Path], instructions: Path, tmp_path: Path) -> None:
    build(tmp_path / "out", [corpus(), tuning(repetition=2.5)], raw, instructions=instructions)
    drawn = Counter(row for asset, _, row in documents(tmp_path / "out") if asset == "tokenized_instructions")
    assert set(drawn.values()) == {2, 3}
    tokens = sum(count * (10 + row) for row, count in drawn.items())
    available = sum(range(10, 20))
    assert abs(tokens - 2.5 * available) <= 19 / 2
    row = pl.read_parquet(tmp_path / "out/data-00000.parquet").filter(component="tuning").to_dicts()[0]
    assert row["num_tokens"] == tokens
    assert row["repetition"] == pytest.approx(tokens / available)


def test_ratios_are_shares_of_the_budget_to_within_one_document(raw: dict[str, Path], instructions: Path, tmp_path: Path) -> None:
    statistics = build(tmp_path / "out", [corpus(ratio=0.7), tuning(ratio=0.3)], raw, instructions=instructions)
    assert statistics["components"]["tuning"]["num_tokens"] == pytest.approx(0.3 * 20 * BATCH, abs=19 / 2 + 1)
    assert statistics["num_tokens"] == 20 * BATCH


def test_the_filler_repeats_where_data_is_short_and_says_how_often(raw: dict[str, Path], tmp_path: Path) -> None:
    available = sum(int(np.load(folder / "offsets.npy")[-1]) for folder in raw.values())
    statistics = build(tmp_path / "out", [corpus()], raw, num_steps=150)
    assert statistics["components"]["corpus"]["repetition"] == pytest.approx((150 * BATCH + statistics["cut_tokens"]) / available)
    passes = 150 * BATCH // available
    assert set(Counter(documents(tmp_path / "out")).values()) == {passes, passes + 1}


@pytest.mark.parametrize(
    ("mixture", "component", "ways_out"),
    [
        ([corpus(max_repetition=1.5), tuning(repetition=1)], "corpus", "add shards of"),
        ([corpus(max_repetition=1.5), tuning(ratio=0.2)], "corpus", "add shards of"),
        ([corpus(ratio=0.5), tuning(ratio=0.5, max_repetition=3)], "tuning", "add examples of"),
    ],
)
@pytest.mark.parametrize("packing", ["concatenate", "best_fit"])
def test_too_many_passes_stop_with_the_tokens_available_and_needed_and_a_budget_that_works(
    mixture: list[Component], component: str, ways_out: str, packing: str, raw: dict[str, Path], instructions: Path, tmp_path: Path
) -> None:
    with pytest.raises(TooLittleData, match=rf"'{component}' has [\d,]+ documents with [\d,]+ tokens and would need [\d,]+") as raised:
        build(tmp_path / "out", mixture, raw, instructions=instructions, num_steps=150, packing=packing)
    assert ways_out in str(raised.value)
    budget = int(re.search(r"token_budget to at most ([\d,]+)", str(raised.value))[1].replace(",", ""))
    assert BATCH < budget < 150 * BATCH
    build(tmp_path / "out", mixture, raw, instructions=instructions, token_budget=budget - BATCH, packing=packing)


@pytest.mark.parametrize("packing", ["concatenate", "best_fit"])
def test_a_mixture_that_leaves_nothing_to_the_filler_is_refused(
    packing: str, raw: dict[str, Path], instructions: Path, tmp_path: Path
) -> None:
    with pytest.raises(TooLittleData, match=r"\('tuning' 1,305\) take all of the 1,280 tokens and leave none to 'corpus'"):
        build(tmp_path / "out", [corpus(), tuning(repetition=9)], raw, instructions=instructions, packing=packing)


def test_shards_and_documents_that_do_not_fit_together_are_refused(
    raw: dict[str, Path], augmented: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="synthesized/tokenized_augmented of c--2 is not given"):
        build(tmp_path / "out", [corpus("synthesized")], raw, augmented={key: augmented[key] for key in ("c--0", "c--1")})
    foreign = augmented | {"c--0": augmented["c--1"]}
    with pytest.raises(ValueError, match="of c--0 names documents that its tokenized_raw lacks"):
        build(tmp_path / "out", [corpus("synthesized")], raw, augmented=foreign)


def test_the_seed_decides_the_order_and_nothing_else_does(raw: dict[str, Path], tmp_path: Path) -> None:
    build(tmp_path / "a", [corpus()], raw)
    build(tmp_path / "b", [corpus()], dict(reversed(raw.items())))
    build(tmp_path / "c", [corpus()], raw, seed=1)
    for name in ("pieces.npy", "bounds.npy", "sources.json", "data-00000.parquet", PREVIEW):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert documents(tmp_path / "a") != documents(tmp_path / "c")


def test_the_order_is_the_one_recorded(
    raw: dict[str, Path], augmented: dict[str, Path], instructions: Path, tmp_path: Path, golden: Callable[[str, object], None]
) -> None:
    build(tmp_path / "out", [corpus("synthesized"), tuning(repetition=1.5)], raw, augmented=augmented, instructions=instructions)
    digests = {
        name: sha256((tmp_path / "out" / name).read_bytes()).hexdigest()[:16] for name in ("pieces.npy", "bounds.npy", "sources.json")
    }
    golden("mixture", digests)


def test_a_new_shard_leaves_the_order_of_the_others_rows(raw: dict[str, Path], tmp_path: Path) -> None:
    fewer = {key: raw[key] for key in ("c--0", "c--2")}
    build(tmp_path / "few", [corpus()], fewer)
    build(tmp_path / "all", [corpus()], raw)
    few, every = documents(tmp_path / "few")[:-1], documents(tmp_path / "all")[:-1]
    common = set(few) & set(every)
    assert len(common) > 10
    assert [d for d in few if d in common] == [d for d in every if d in common]


def test_documents_of_all_sources_are_shuffled_together(raw: dict[str, Path], instructions: Path, tmp_path: Path) -> None:
    build(tmp_path / "out", [corpus(), tuning(repetition=2)], raw, instructions=instructions, num_steps=60)
    order = documents(tmp_path / "out")
    places = [place / len(order) for place, (asset, _, _) in enumerate(order) if asset == "tokenized_instructions"]
    assert len(places) == 20
    assert 0.3 < np.mean(places) < 0.7
    rows = np.array([row for asset, partition, row in order if (asset, partition) == ("tokenized_raw", "c--0")])
    assert abs(np.corrcoef(rows, np.arange(len(rows)))[0, 1]) < 0.35


def test_a_document_drawn_early_from_its_component_does_not_stand_early_in_training(tmp_path: Path) -> None:
    raw = {"c--0": write_rows(tmp_path / "raw", [(str(i), [str(i)], 8) for i in range(4000)])}
    build(tmp_path / "half", [corpus()], raw, num_steps=250)
    build(tmp_path / "quarter", [corpus()], raw, num_steps=125)
    quarter = set(documents(tmp_path / "quarter"))
    places = [place for place, document in enumerate(documents(tmp_path / "half")) if document in quarter]
    assert len(places) == len(quarter) == 1000
    assert np.mean(places) == pytest.approx(1000, abs=60)


def test_a_missing_source_is_named(raw: dict[str, Path], tmp_path: Path) -> None:
    build(tmp_path / "out", [corpus()], raw)
    with pytest.raises(ValueError, match="not given: tokenized_raw/c--1"):
        MixtureSequences(tmp_path / "out", folders({key: raw[key] for key in ("c--0", "c--2")}))


def test_an_empty_shard_and_a_mixture_without_corpus_work(raw: dict[str, Path], instructions: Path, tmp_path: Path) -> None:
    with_empty = raw | {"c--9": write_rows(tmp_path / "empty", [])}
    build(tmp_path / "a", [corpus()], with_empty)
    assert pl.read_parquet(tmp_path / "a/data-00000.parquet")["num_tokens"].to_list()[-1] == 0
    only = build(tmp_path / "b", [tuning()], {}, instructions=instructions)
    assert only["components"]["tuning"]["share"] == 1
    with pytest.raises(ValueError, match="component 'corpus' holds no document"):
        build(tmp_path / "c", [corpus()], {})
