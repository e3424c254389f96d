"""The documents that a mixture may take: rows of tokenized artifacts by component, without those that stand elsewhere or are held out.

A document takes 16 bytes here. Documents of a source, and sources of a component, stand one behind the other.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from instpt_assets.mixture.ordering import Keys, rekey, row_keys
from instpt_assets.mixture.row_index import Indices, RowIndex
from instpt_assets.recipe.arms import Component

RAW, AUGMENTED, INSTRUCTIONS = "tokenized_raw", "tokenized_augmented", "tokenized_instructions"
_HELD_OUT = 1
"""Number of the order by which documents are held out."""

BLOCK = 1 << 18
"""Documents that are worked on at a time, so that what is computed on the way takes no memory of all."""

Ints = npt.NDArray[np.int64]


def blocks(values: npt.NDArray[Any], size: int = BLOCK) -> Iterator[npt.NDArray[Any]]:
    """The array, so many values at a time."""
    for begin in range(0, len(values), size):
        yield values[begin : begin + size]


@dataclass(frozen=True)
class SourceRows:
    """Rows of one tokenized artifact that belong to a component."""

    component: int | None
    """Which of the mixture; None: it is here for documents held out."""
    asset: str
    partition: str
    rows: npt.NDArray[np.int32]
    num_tokens: npt.NDArray[np.int32]
    """Of each row, EOS included."""
    num_augmented: int = 0
    """Raw documents left out because they stand in augmented texts of the arm."""
    num_held_out: int = 0
    """Rows left out because they are, or hold, documents that are held out."""


@dataclass(frozen=True)
class HeldOut:
    """Raw documents that no arm trains on."""

    hashes: Keys
    """Of their ids, sorted."""
    sources: tuple[tuple[str, str], ...]
    """Those that hold some."""
    source: Ints
    """Of each document [documents], in hash order: its source's place in `sources`."""
    row: Ints
    num_tokens: Ints

    @property
    def num_documents(self) -> int:
        """How many."""
        return len(self.hashes)


class Documents:
    """All documents of all components.

    Args:
        mixture: the arm's components.
        indices: the tokenized artifacts.
        held_out: documents to leave out.
        seed: of the orders.

    Attributes:
        sources: the sources of the components, then those that hold only documents held out; their `rows` and `num_tokens` are empty.
        first: int64 [sources + 1]: documents first[s] … first[s + 1] - 1 are of source s.
        rows: int32 [documents]: rows of their sources.
        num_tokens: int32 [documents], EOS included.
        keys: uint64 [documents]: their random order.
        named: asset and partition of the sources that the mixture's index names: those that have documents, or some held out.
        numbers: int64 [sources]: their places in `named`.

    Raises:
        ValueError: a component holds no document, or artifacts do not fit together; the message says what to do.
    """

    def __init__(self, mixture: Sequence[Component], indices: Indices, held_out: HeldOut, *, seed: int) -> None:
        self.mixture = mixture
        self.sources: list[SourceRows] = []
        rows, tokens = [], []
        for source in _sources(mixture, indices, held_out):
            rows.append(source.rows)
            tokens.append(source.num_tokens)
            empty = np.empty(0, dtype=np.int32)
            self.sources.append(SourceRows(**{**vars(source), "rows": empty, "num_tokens": empty}))
        self.first: Ints = np.cumsum([0, *map(len, rows)])
        self.rows = np.concatenate([*rows, np.empty(0, np.int32)])
        self.num_tokens = np.concatenate([*tokens, np.empty(0, np.int32)])
        self.keys: Keys = np.empty(len(self.rows), dtype=np.uint64)
        for source, begin, end in zip(self.sources, self.first[:-1], self.first[1:], strict=True):
            for part in (slice(at, min(at + BLOCK, end)) for at in range(begin, end, BLOCK)):
                self.keys[part] = row_keys(f"{seed}/{source.asset}/{source.partition}", self.rows[part])
        known = {(source.asset, source.partition) for source in self.sources}
        for asset, partition in held_out.sources:
            if (asset, partition) not in known:
                self.sources.append(SourceRows(None, asset, partition, empty := np.empty(0, dtype=np.int32), empty))
        self.first = np.append(self.first, np.full(len(self.sources) + 1 - len(self.first), self.first[-1]))
        holding = set(held_out.sources)
        needed = [
            rows > 0 or (source.asset, source.partition) in holding for rows, source in zip(np.diff(self.first), self.sources, strict=True)
        ]
        self.numbers: Ints = np.cumsum(needed) - 1
        self.named = [(source.asset, source.partition) for source, is_needed in zip(self.sources, needed, strict=True) if is_needed]
        for place, component in enumerate(mixture):
            begin, end = self.span(place)
            if begin == end:
                raise ValueError(_nothing_left(component, [source for source in self.sources if source.component == place]))

    def __len__(self) -> int:
        return len(self.rows)

    def span(self, component: int) -> tuple[int, int]:
        """The documents of a component: begin … end - 1."""
        own = [place for place, source in enumerate(self.sources) if source.component == component]
        return (int(self.first[own[0]]), int(self.first[own[-1] + 1])) if own else (0, 0)

    def count_by_source(self, sources: Ints, weights: npt.NDArray[Any] | None = None) -> Ints:
        """How often each source stands among some [n], or their weights [n] added up: [sources]."""
        found = np.bincount(sources, weights=weights, minlength=len(self.sources))
        return found.astype(np.int64)

    def source_of(self, documents: npt.NDArray[Any]) -> Ints:
        """The sources [n] of documents [n]."""
        return np.searchsorted(self.first, documents, side="right") - 1


def hold_out(indices: Indices, num_documents: int) -> HeldOut:
    """The raw documents with the smallest hashes, over all raw shards given: the same in every arm that is about the same shards.

    Raises:
        ValueError: there are not more than so many.
    """
    raw = sorted(source for source in indices if source[0] == RAW) if num_documents else []
    columns = [np.empty(0, dtype=kind) for kind in ("u8", "u8", "i8", "i8", "i8")]
    total = 0
    for place, source in enumerate(raw):
        index = indices[source]()
        total += len(index)
        order = rekey(index.documents, _HELD_OUT)
        new = (order, index.documents, np.full(len(index), place), np.arange(len(index)), index.num_tokens)
        columns = [np.concatenate(pair) for pair in zip(columns, new, strict=True)]
        nearest = np.argsort(columns[0], kind="stable")[:num_documents]
        columns = [column[nearest] for column in columns]
    if num_documents and total <= num_documents:
        raise ValueError(
            f"pretraining.held_out_documents {num_documents:,}: the arm's shards have {total:,} raw documents, and none would be left to train on; "
            "hold out fewer, or add shards"
        )
    _, hashes, of_source, row, num_tokens = columns
    used, number = np.unique(of_source, return_inverse=True)
    return HeldOut(np.sort(hashes), tuple(raw[place] for place in used), number, row, num_tokens)


def _sources(mixture: Sequence[Component], indices: Indices, held_out: HeldOut) -> Iterator[SourceRows]:
    for place, component in enumerate(mixture):
        if not component.holds_documents:
            if (INSTRUCTIONS, "all") not in indices:
                raise ValueError(f"component '{component.label}' needs {INSTRUCTIONS}")
            index = indices[INSTRUCTIONS, "all"]()
            yield _kept(place, INSTRUCTIONS, "all", index, index.rows_of(component.component))
            continue
        augmented = f"{component.pair_set}/{AUGMENTED}"
        assets = {"corpus": {RAW, augmented}, "raw": {RAW}, "augmented": {augmented}}[component.component]
        for shard in sorted({partition for asset, partition in indices if asset in assets and component.takes(partition)}):
            yield from _shard_sources(place, component, mixture, shard, indices, held_out)


def _shard_sources(
    place: int, component: Component, mixture: Sequence[Component], shard: str, indices: Indices, held_out: HeldOut
) -> Iterator[SourceRows]:
    """A component's rows of one shard: augmented ones, then raw ones."""
    pair_set = component.pair_set
    if component.component == "raw":  # what an augmented component of the arm holds
        pair_set = next((other.pair_set for other in mixture if other.component == "augmented" and other.takes(shard)), None)
    augmented = _read(indices, f"{pair_set}/{AUGMENTED}", shard) if pair_set else None
    held = np.empty(0, dtype=bool) if augmented is None else augmented.rows_with(held_out.hashes)
    if augmented is not None and component.component != "raw":
        yield _kept(place, f"{pair_set}/{AUGMENTED}", shard, augmented, ~held, num_held_out=int(held.sum()))
    if component.component == "augmented":
        return
    raw = _read(indices, RAW, shard)
    out = raw.rows_with(held_out.hashes)
    chosen = np.zeros(len(raw), dtype=bool)
    if augmented is not None:
        documents = np.unique(augmented.documents)
        chosen = raw.rows_with(documents)
        if chosen.sum() != len(documents):
            raise ValueError(f"{pair_set}/{AUGMENTED} of {shard} names documents that its {RAW} lacks: materialize both again")
        if held.any():  # a document whose texts all hold one that is held out stands raw
            chosen = raw.rows_with(augmented.documents_of(~held))
    yield _kept(place, RAW, shard, raw, ~(out | chosen), num_augmented=int((chosen & ~out).sum()), num_held_out=int(out.sum()))


def _read(indices: Indices, asset: str, shard: str) -> RowIndex:
    if (asset, shard) not in indices:
        raise ValueError(f"{asset} of {shard} is not given: the shards of raw documents and augmented texts must be the same")
    return indices[asset, shard]()


def _kept(
    place: int, asset: str, partition: str, index: RowIndex, kept: npt.NDArray[np.bool_], *, num_augmented: int = 0, num_held_out: int = 0
) -> SourceRows:
    rows = np.flatnonzero(kept).astype(np.int32)
    return SourceRows(place, asset, partition, rows, index.num_tokens[rows], num_augmented, num_held_out)


def _nothing_left(component: Component, sources: Sequence[SourceRows]) -> str:
    augmented, held_out = (sum(getattr(source, name) for source in sources) for name in ("num_augmented", "num_held_out"))
    if augmented or held_out:
        left_out = f": {augmented:,} of its documents stand in augmented texts, {held_out:,} are held out"
        return (
            f"component '{component.label}' holds no document{left_out}; take it out of the mixture, add shards or hold out fewer documents"
        )
    if not component.holds_documents:
        source = "tuning.sources" if component.component == "tuning" else "general_instructions.source"
        return f"component '{component.label}' holds no document: {source} gave none"
    return f"component '{component.label}' holds no document: materialize shards of its corpora, or take it out of the mixture"
