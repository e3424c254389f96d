"""Every token of random recipes' mixtures is accounted for."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from instpt_assets.mixture.drawing import TooLittleData
from instpt_assets.mixture.mix import build_mixture
from instpt_assets.mixture.row_index import Indices, RowIndex
from instpt_assets.recipe.arms import Arm, Component
from instpt_assets_tests.mixture.synthetic import rows

LENGTH = 32
CORPORA = ("news", "papers", "web")


@st.composite
def stores(draw: st.DrawFn) -> Indices:
    """Three corpora of one to three shards; texts of up to three of a shard's documents; tuning data and general instructions."""
    tokens = st.integers(1, 4 * LENGTH)
    found: dict[tuple[str, str], Callable[[], RowIndex]] = {}
    for corpus in CORPORA:
        for shard in range(draw(st.integers(1, 3))):
            key, sizes = f"{corpus}--{shard}", draw(st.lists(tokens, min_size=1, max_size=30))
            ids = [1000 * len(found) + place for place in range(len(sizes))]
            found["tokenized_raw", key] = rows(sizes, [[document] for document in ids])
            for pair_set in ("synthesized", "rule_based"):
                chosen = ids[: draw(st.integers(0, len(ids)))]
                texts = [chosen[first : first + 3] for first in range(0, len(chosen), 3)]
                found[f"{pair_set}/tokenized_augmented", key] = rows([draw(tokens) for _ in texts], texts)
    kinds = draw(st.lists(st.sampled_from(["tuning", "general", "tuning_pairs"]), min_size=5, max_size=20))
    found["tokenized_instructions", "all"] = rows([draw(tokens) for _ in kinds], [[] for _ in kinds], kinds)
    return found


@st.composite
def mixtures(draw: st.DrawFn) -> list[Component]:
    """Components on corpora of their own, in amounts by ratio or repetition; one may fill the budget."""
    kinds = draw(
        st.lists(st.sampled_from(["corpus", "raw", "augmented", "both", "tuning", "general"]), min_size=1, max_size=4, unique=True)
    )
    documents = [kind for kind in kinds if kind not in ("tuning", "general")]
    owner = {corpus: draw(st.sampled_from(documents)) for corpus in CORPORA} if documents else {}
    parts: list[dict[str, Any]] = []
    for kind in kinds:
        own = tuple(corpus for corpus in CORPORA if owner.get(corpus) == kind)
        corpora = {"corpora": None if own == CORPORA else own} if kind in documents else {}
        pair_set = draw(st.sampled_from(["synthesized", "rule_based"]))
        if kind in documents and not own:
            continue
        if kind == "both":
            parts += [{"component": "raw", **corpora}, {"component": "augmented", "pair_set": pair_set, **corpora}]
        else:
            takes = kind == "augmented" or (kind == "corpus" and draw(st.booleans()))
            parts.append({"component": kind, **corpora, **({"pair_set": pair_set} if takes else {})})
    if not parts:
        parts = [{"component": "corpus"}]
    by_ratio = [draw(st.booleans()) for _ in parts]
    weights = [draw(st.integers(1, 5)) for _ in parts]
    filler = None if all(by_ratio) and draw(st.booleans()) else draw(st.integers(0, len(parts) - 1))
    whole = sum(weights) + (0 if filler is None else 1)
    for place, part in enumerate(parts):
        if place != filler:
            part |= {"ratio": weights[place] / whole} if by_ratio[place] else {"repetition": draw(st.sampled_from([0.5, 1.0, 1.7, 3.0]))}
    return list(Arm.model_validate({"mixture": tuple(parts)}).mixture)


@settings(max_examples=60)
@given(
    indices=stores(),
    mixture=mixtures(),
    packing=st.sampled_from(["concatenate", "best_fit"]),
    steps=st.lists(st.integers(1, 40), min_size=1, max_size=3, unique=True),
    held_out=st.sampled_from([0, 0, 1, 3]),
    seed=st.integers(0, 3),
)
def test_every_token_of_the_budget_is_trained_on_or_padding_and_every_row_stands_as_often_as_it_was_drawn(
    indices: Indices, mixture: list[Component], packing: Any, steps: list[int], held_out: int, seed: int
) -> None:
    batch = 4 * LENGTH
    budgets = [count * batch for count in sorted(steps)]
    with TemporaryDirectory() as folder:
        out = Path(folder)
        try:
            statistics = build_mixture(
                mixture,
                indices,
                seed=seed,
                token_budget=budgets[-1],
                extended_from=budgets[:-1],
                batch_tokens=batch,
                sequence_length=LENGTH,
                packing=packing,
                held_out_documents=held_out,
                out=out,
            )
        except TooLittleData:
            return
        except ValueError as error:
            if "holds no document" not in str(error) and "held_out_documents" not in str(error):
                raise
            return
        pieces, bounds = np.load(out / "pieces.npy"), np.load(out / "bounds.npy")
        table = pl.read_parquet(out / "data-00000.parquet")
        named = [(source["asset"], source["partition"]) for source in json.loads((out / "sources.json").read_text())["sources"]]
        held = (
            [named[source] + (row,) for source, row in np.load(out / "held_out_pieces.npy")[["source", "row"]].tolist()] if held_out else []
        )
    budget = budgets[-1]
    assert len(bounds) - 1 == budget // LENGTH == statistics["num_sequences"]
    filled = np.add.reduceat(pieces["count"], bounds[:-1], dtype=np.int64)
    assert filled.max() <= LENGTH
    assert filled.min() >= 1
    if packing == "concatenate":
        assert filled.min() == LENGTH
    # The budget adds up, by rows of the table, by component and over all.
    assert table["num_tokens"].sum() == pieces["count"].sum() == statistics["num_trained_tokens"]
    assert statistics["num_trained_tokens"] + statistics["padding_tokens"] == budget == statistics["num_tokens"]
    parts = statistics["components"]
    assert sum(part["num_tokens"] for part in parts.values()) == statistics["num_trained_tokens"]
    assert sum(part["cut_tokens"] for part in parts.values()) == statistics["cut_tokens"]

    hidden = {int(indices[asset, shard]().documents[row]) for asset, shard, row in held}
    assert len(hidden) == held_out
    trained = Counter[tuple[str, str, int]]()
    for source, row, begin, count in pieces.tolist():
        assert 0 <= begin < begin + count
        trained[*named[source], row] += count
    for component in mixture:
        part = parts[component.label]
        passes, cut, drawn, never = part["num_tokens"] + part["cut_tokens"], 0, 0, 0
        whole_passes, rest = divmod(passes, part["available_tokens"])
        for source in table.filter(component=component.label).to_dicts():
            where = source["asset"], source["partition"]
            lengths, left_out = rows_of(indices, *where, component), left_out_of(indices, *where, component, mixture, hidden)
            left = source["available_documents"] + source["augmented_documents"] + source["held_out_documents"]
            assert left == len(lengths)
            assert not any(trained[*where, row] for row in left_out)
            assert source["augmented_documents"] + source["held_out_documents"] == len(left_out)
            assert sum(trained[*where, row] for row in lengths) == source["num_tokens"]
            for row, length in lengths.items():
                times = -(-trained[*where, row] // length)
                drawn, never, cut = drawn + times, never + (not times), cut + times * length - trained[*where, row]
                assert times <= whole_passes + (rest > 0)
                assert part["cut_tokens"] or times >= whole_passes or row in left_out or held_out
        # Where whole rows were cut away these figures tell it: nothing else is missing.
        missing = part["cut_tokens"] - cut, part["num_documents"] - drawn
        assert min(missing) >= 0
        assert (missing[0] == 0) == (missing[1] == 0)
        left_out_documents = part["unused_documents"] + part["augmented_documents"] + part["held_out_documents"]
        assert never >= left_out_documents
        assert never == left_out_documents or missing[1]
        longest = max(int(read().num_tokens.max(initial=0)) for read in indices.values())
        if component.ratio is not None:
            # To within one document; the largest makes up for what all others are off.
            others = len(mixture) if component is max(mixture, key=lambda c: (c.fills, c.ratio or 0)) else 1
            everything = statistics["num_trained_tokens"] + statistics["cut_tokens"]
            assert abs(passes - component.ratio * everything) <= others * longest + len(budgets)
        elif component.repetition is not None:
            assert abs(part["repetition"] - component.repetition) * part["available_tokens"] <= longest / 2 + 1


def rows_of(indices: Indices, asset: str, shard: str, component: Component) -> dict[int, int]:
    """The rows that are a component's, and their tokens."""
    read = indices[asset, shard]()
    rows = dict(enumerate(read.num_tokens.tolist()))
    if component.holds_documents:
        return rows
    return {row: tokens for row, tokens in rows.items() if read.components[read.component[row]] == component.component}


def left_out_of(indices: Indices, asset: str, shard: str, component: Component, mixture: list[Component], hidden: set[int]) -> set[int]:
    """Rows that hold documents held out, and raw ones whose documents stand in augmented texts of the arm."""
    if not component.holds_documents:
        return set()
    out = {row for row, documents in enumerate(documents_of(indices, asset, shard)) if documents & hidden}
    if asset != "tokenized_raw":
        return out
    holders = [component] if component.component == "corpus" else [c for c in mixture if c.component == "augmented" and c.takes(shard)]
    texts = [text for c in holders if c.pair_set for text in documents_of(indices, f"{c.pair_set}/tokenized_augmented", shard)]
    chosen = set().union(*(text for text in texts if not text & hidden))
    return out | {row for row, documents in enumerate(documents_of(indices, asset, shard)) if documents & chosen}


def documents_of(indices: Indices, asset: str, shard: str) -> list[set[int]]:
    """The hashes of the documents of each row."""
    index = indices[asset, shard]()
    ends = np.cumsum(index.num_documents, dtype=np.int64)
    return [{int(name) for name in index.documents[end - count : end]} for end, count in zip(ends, index.num_documents, strict=True)]
