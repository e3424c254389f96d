"""The mixture: which rows of which tokenized shards an arm trains on, how often, and in what order.

It is an index and copies no token. Whole documents are sampled: a component is passed over in a random order, and a fraction of a
pass takes a prefix of it. The documents of all components are shuffled together and stand one behind the other (each ends in EOS);
cut every `sequence_length` tokens they are the training sequences (Brown et al. 2020, appendix B). The stream has exactly as many
tokens as the steps take, so all arms train on equally many: one component fills what the others leave, and the document of its
that crosses the end stands last and is cut there. Every other document is complete.

- `order.npy`: (source int32, row int64) of each document, in training order;
- `starts.npy` (int64, documents + 1): where each begins in the stream, and the stream's length;
- `sources.json`: sequence_length, num_tokens, and the sources (asset, partition) that `order.npy` counts;
- `data-00000.parquet`: what each source gives.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import numpy.typing as npt

from instpt_assets.mixture.ordering import Keys, rekey, row_keys
from instpt_assets.recipe.arms import Component

ORDER, STARTS, SOURCES, TABLE = "order.npy", "starts.npy", "sources.json", "data-00000.parquet"
ORDER_DTYPE = np.dtype([("source", "<i4"), ("row", "<i8")])

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class _Source:
    """Rows of one tokenized artifact that belong to a component."""

    component: str
    asset: str
    partition: str
    rows: Ints
    tokens: Ints
    """Of each row, EOS included."""
    left_out: int = 0
    """Raw documents that the pair set chose; they stand in its augmented texts."""


@dataclass(frozen=True)
class _Pool:
    """All rows of one component."""

    sources: Ints
    rows: Ints
    tokens: Ints
    keys: Keys

    @property
    def num_tokens(self) -> int:
        return int(self.tokens.sum())


@dataclass(frozen=True)
class _Draws:
    """Rows of a pool, as often as they are taken."""

    pool: _Pool
    indices: Ints
    passes: Ints

    @property
    def num_tokens(self) -> int:
        return int(self.pool.tokens[self.indices].sum())


def build_mixture(
    mixture: Sequence[Component],
    *,
    raw: Mapping[str, Path],
    augmented: Mapping[str, Path] | None = None,
    instructions: Path | None = None,
    seed: int,
    token_budget: int,
    batch_tokens: int,
    sequence_length: int,
    out: Path,
) -> dict[str, Any]:
    """Choose, repeat and order the documents of an arm (files: module docstring).

    Args:
        mixture: the arm's components.
        raw: `tokenized_raw` of each shard; here and below, offsets and tables of rows are read, tokens are not.
        augmented: `tokenized_augmented` of the same shards, exactly if the corpus component names a pair set; its documents leave `raw`.
        instructions: `tokenized_instructions`, if the mixture has `tuning` or `general`.
        seed: of all orders.
        token_budget: tokens to train on; rounded to whole steps as `Optimization.num_steps` does.
        batch_tokens: tokens a step; a multiple of sequence_length.
        sequence_length: tokens a training sequence.
        out: the artifact's folder.

    Returns:
        Statistics: num_steps, num_tokens, num_sequences, num_documents, num_sources, left_out_documents, cut_tokens (of the last document),
        components (num_documents, num_tokens, available_tokens, repetition, share of each), seconds.

    Raises:
        ValueError: a component has no token, would be passed over more often than max_repetition, or leaves nothing to the one that
            fills the budget; the shards of raw and augmented differ, or an augmented text names a document that is not in raw.
    """
    import polars as pl

    started = monotonic()
    if batch_tokens % sequence_length:
        raise ValueError(f"batch_tokens {batch_tokens} is no multiple of sequence_length {sequence_length}")
    num_steps = max(1, round(token_budget / batch_tokens))
    budget = num_steps * batch_tokens
    sources = [source for component in mixture for source in _sources(component, raw, augmented, instructions)]
    pools: dict[str, _Pool] = {component.component: _pool(component.component, sources, seed) for component in mixture}
    draws = _draw(mixture, pools, budget)

    order, tokens = _shuffle(draws)
    starts = np.concatenate([[0], np.cumsum(tokens)])
    cut = int(starts[-1]) - budget
    assert 0 <= cut < max(tokens[-1], 1), "only the last document may cross the end"
    starts[-1] = budget
    out.mkdir(parents=True, exist_ok=True)
    np.save(out / ORDER, order)
    np.save(out / STARTS, starts)
    index = {
        "sequence_length": sequence_length,
        "num_tokens": budget,
        "sources": [{"asset": source.asset, "partition": source.partition} for source in sources],
    }
    (out / SOURCES).write_text(json.dumps(index, indent=1) + "\n")
    table = _table(sources, order["source"], np.diff(starts), budget)
    table.write_parquet(out / TABLE, compression="zstd")
    columns = ("num_documents", "num_tokens", "available_tokens")
    parts = table.group_by("component", maintain_order=True).agg(pl.col(*columns).sum())
    parts = parts.with_columns(repetition=pl.col("num_tokens") / pl.col("available_tokens"), share=pl.col("num_tokens") / budget)
    return {
        "num_steps": num_steps,
        "num_tokens": budget,
        "num_sequences": budget // sequence_length,
        "num_documents": len(order),
        "num_sources": len(sources),
        "left_out_documents": table["left_out_documents"].sum(),
        "cut_tokens": cut,
        "components": {row.pop("component"): row for row in parts.to_dicts()},
        "seconds": monotonic() - started,
    }


def _sources(
    component: Component, raw: Mapping[str, Path], augmented: Mapping[str, Path] | None, instructions: Path | None
) -> Iterator[_Source]:
    if component.component != "corpus":
        if instructions is None:
            raise ValueError(f"component '{component.component}' needs tokenized_instructions")
        yield _instruction_source(component.component, instructions)
        return
    if (component.pair_set is None) != (augmented is None):
        raise ValueError("augmented shards go with a pair_set, and a pair_set with augmented shards")
    if augmented is not None and set(augmented) != set(raw):
        raise ValueError(f"raw and augmented shards differ: {', '.join(sorted(set(augmented) ^ set(raw)))}")
    for shard in sorted(raw):
        yield from _shard_sources(shard, raw[shard], None if augmented is None else augmented[shard], component.pair_set)


def _shard_sources(shard: str, raw: Path, augmented: Path | None, pair_set: str | None) -> Iterator[_Source]:
    import pyarrow.compute as pc

    from instpt_assets.mixture.arrays import TokenizedRows

    documents = TokenizedRows(raw)
    tokens = documents.num_tokens()
    kept = np.ones(len(documents), dtype=bool)
    if augmented is not None:
        texts = TokenizedRows(augmented)
        chosen = pc.unique(pc.list_flatten(texts.column("document_ids")))
        kept = ~pc.is_in(documents.column("row_id"), value_set=chosen).to_numpy()
        if len(kept) - kept.sum() != len(chosen):
            raise ValueError(
                f"{pair_set}/tokenized_augmented of {shard} names documents that its tokenized_raw lacks: materialize both again"
            )
        rows = np.arange(len(texts))
        yield _Source("corpus", f"{pair_set}/tokenized_augmented", shard, rows, texts.num_tokens())
    rows = np.flatnonzero(kept)
    yield _Source("corpus", "tokenized_raw", shard, rows, tokens[rows], left_out=len(kept) - len(rows))


def _instruction_source(component: str, folder: Path) -> _Source:
    import pyarrow.compute as pc

    from instpt_assets.mixture.arrays import TokenizedRows

    instructions = TokenizedRows(folder)
    rows = np.flatnonzero(pc.equal(instructions.column("component"), component).to_numpy())
    return _Source(component, "tokenized_instructions", "all", rows, instructions.num_tokens()[rows])


def _pool(component: str, sources: Sequence[_Source], seed: int) -> _Pool:
    own = [(index, source) for index, source in enumerate(sources) if source.component == component]
    if not sum(len(source.rows) for _, source in own):
        raise ValueError(f"component '{component}' holds no document")
    return _Pool(
        sources=np.concatenate([np.full(len(source.rows), index) for index, source in own]),
        rows=np.concatenate([source.rows for _, source in own]),
        tokens=np.concatenate([source.tokens for _, source in own]),
        keys=np.concatenate([row_keys(f"{seed}/{source.asset}/{source.partition}", source.rows) for _, source in own]),
    )


def _draw(mixture: Sequence[Component], pools: Mapping[str, _Pool], budget: int) -> list[_Draws]:
    """What each component gives; the one that fills the budget (with ratios: the largest) stands last."""
    filler = max(mixture, key=lambda component: (component.repetition is None, component.ratio or 0))
    draws: list[_Draws] = []
    for component in mixture:
        if component is not filler:
            pool = pools[component.component]
            amount = budget * component.ratio if component.ratio is not None else pool.num_tokens * (component.repetition or 0)
            draws.append(_take(component, pool, round(amount), cross=False))
    left = budget - sum(draw.num_tokens for draw in draws)
    if left <= 0:
        raise ValueError(
            f"the other components take {budget - left:,} of {budget:,} tokens and leave none to '{filler.component}': "
            "lower their repetition or raise the token budget"
        )
    return [*draws, _take(filler, pools[filler.component], left, cross=True)]


def _take(component: Component, pool: _Pool, amount: int, *, cross: bool) -> _Draws:
    """Passes over the pool that hold `amount` tokens: with `cross` as few documents as reach it, else as many as come nearest to it."""
    available = pool.num_tokens
    if amount > round(available * component.max_repetition):
        raise ValueError(
            f"component '{component.component}' has {available:,} tokens available and needs {amount:,}: {amount / available:.2f} passes, "
            f"more than its max_repetition {component.max_repetition:g}; add shards, lower the token budget or raise max_repetition"
        )
    passes, rest = divmod(amount, available)
    permutation = np.argsort(pool.keys, kind="stable")
    reached = np.cumsum(pool.tokens[permutation])
    count = int(np.searchsorted(reached, rest)) if rest else 0
    before = int(reached[count - 1]) if count else 0
    if rest and (cross or reached[count] - rest <= rest - before):
        count += 1
    return _Draws(
        pool=pool,
        indices=np.concatenate([*[permutation] * passes, permutation[:count]]),
        passes=np.repeat(np.arange(passes + 1), [*[len(permutation)] * passes, count]),
    )


def _shuffle(draws: Sequence[_Draws]) -> tuple[npt.NDArray[Any], Ints]:
    """Source and row of each document, and its tokens, in training order; the last draw of the last component stays last."""
    sources = np.concatenate([draw.pool.sources[draw.indices] for draw in draws])
    rows = np.concatenate([draw.pool.rows[draw.indices] for draw in draws])
    tokens = np.concatenate([draw.pool.tokens[draw.indices] for draw in draws])
    keys = np.concatenate([rekey(draw.pool.keys[draw.indices], draw.passes) for draw in draws])
    places = np.append(np.argsort(keys[:-1], kind="stable"), len(keys) - 1)
    order = np.empty(len(places), dtype=ORDER_DTYPE)
    order["source"] = sources[places]
    order["row"] = rows[places]
    return order, tokens[places]


def _table(sources: Sequence[_Source], drawn: npt.NDArray[np.int32], tokens: Ints, budget: int) -> Any:
    import polars as pl

    num_tokens = np.bincount(drawn, weights=tokens, minlength=len(sources)).astype(np.int64)
    available = np.array([source.tokens.sum() for source in sources], dtype=np.int64)
    return pl.DataFrame(
        {
            "component": [source.component for source in sources],
            "asset": [source.asset for source in sources],
            "partition": [source.partition for source in sources],
            "num_documents": np.bincount(drawn, minlength=len(sources)),
            "num_tokens": num_tokens,
            "available_documents": [len(source.rows) for source in sources],
            "available_tokens": available,
            "repetition": num_tokens / np.maximum(available, 1),
            "share": num_tokens / budget,
            "left_out_documents": [source.left_out for source in sources],
        }
    )
