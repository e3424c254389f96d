"""A stretch of the training data: as many sequences as a budget takes, packed from documents that are drawn for it.

A mixture is one stretch, or several where it extends an earlier budget.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from instpt_assets.mixture.arrays import ArrayWriter
from instpt_assets.mixture.documents import BLOCK, Documents, blocks
from instpt_assets.mixture.drawing import Drawing, Drawn, Places
from instpt_assets.mixture.index import BOUNDS, PIECE_DTYPE, PIECES
from instpt_assets.mixture.ordering import row_keys
from instpt_assets.mixture.packing import best_fit, concatenate, num_best_fit_sequences

_PACKED_TOGETHER = 1 << 20
"""Documents; best fit takes some 100 bytes of each while it packs."""

Ints = npt.NDArray[np.int64]


class SequenceWriter:
    """Writes the pieces of sequences, and counts what it writes.

    Args:
        out: the mixture's folder.
        documents: those of which the sequences are made.

    Attributes:
        drawn_documents: [sources]: documents that were drawn, repeats counted.
        drawn_tokens: [sources]: their tokens.
        trained_tokens: [sources]: of these, those that stand in sequences.
        split_documents: documents that begin in one sequence and do not end in it.
    """

    def __init__(self, out: Path, documents: Documents) -> None:
        self._documents = documents
        self._pieces, self._bounds = ArrayWriter(out / PIECES, PIECE_DTYPE), ArrayWriter(out / BOUNDS, np.int64)
        self._bounds.append([0])
        self.drawn_documents, self.drawn_tokens, self.trained_tokens = np.zeros((3, len(documents.sources)), dtype=np.int64)
        self.split_documents = 0

    def count(self, order: Places) -> None:
        """Count documents as drawn."""
        for places in blocks(order):
            sources = self._documents.source_of(places)
            self.drawn_documents += self._documents.count_by_source(sources)
            self.drawn_tokens += self._documents.count_by_source(sources, self._documents.num_tokens[places])

    def append(self, places: Places, begin: npt.NDArray[Any], count: npt.NDArray[Any], bounds: Ints) -> None:
        """Write sequences.

        Args:
            places: of each piece [pieces]: its document.
            begin: [pieces]: its first token.
            count: [pieces]: its tokens.
            bounds: [sequences + 1]: the pieces of each sequence.
        """
        sources = self._documents.source_of(places)
        pieces = np.empty(len(places), dtype=PIECE_DTYPE)
        pieces["source"] = self._documents.numbers[sources]
        pieces["row"] = self._documents.rows[places]
        pieces["begin"], pieces["count"] = begin, count
        self._bounds.append(self._pieces.length + bounds[1:])
        self._pieces.append(pieces)
        self.trained_tokens += self._documents.count_by_source(sources, count)
        self.split_documents += int(((begin == 0) & (count < self._documents.num_tokens[places])).sum())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._pieces.close()
        self._bounds.close()


def write_concatenated(drawing: Drawing, earlier: Drawn, num_sequences: int, sequence_length: int, writer: SequenceWriter) -> Drawn:
    """Draw documents, and write them one behind the other, cut every `sequence_length` tokens.

    One component fills the stretch to its last token: the document of its that crosses the end stands last, and what is behind the end is
    cut away.

    Raises:
        TooLittleData: see `Drawing.check`.
    """
    positions = num_sequences * sequence_length
    budget = drawing.num_tokens(earlier) + positions
    drawn = drawing.up_to(budget, earlier, cross=True)
    drawing.check(drawn, earlier, budget)
    order = drawing.shuffled(drawn, earlier, last_stays=True)
    writer.count(order)
    # The document at which the next sequence begins, and how many of its tokens stand in those before.
    first, standing, size = 0, 0, BLOCK
    while positions:
        places = order[first : first + size]
        tokens = drawing.documents.num_tokens[places].astype(np.int64)
        tokens[0] -= standing
        tokens[-1] -= max(0, int(tokens.sum()) - positions)  # the document that crosses the end
        packed = concatenate(tokens, sequence_length)
        if len(packed.bounds) == 1:
            size *= 2  # all of these do not make one sequence
            continue
        begin = packed.begin + np.where(packed.document == 0, standing, 0)
        writer.append(places[packed.document], begin, packed.count, packed.bounds)
        positions -= (len(packed.bounds) - 1) * sequence_length
        last, standing = int(packed.document[-1]), int(begin[-1] + packed.count[-1])
        if standing == drawing.documents.num_tokens[places[last]]:
            last, standing = last + 1, 0
        first += last
    return drawn


@dataclass(frozen=True)
class _Bins:
    """Packed sequences; 12 bytes a piece."""

    places: Places
    begin: npt.NDArray[np.int32]
    count: npt.NDArray[np.int32]
    bounds: Ints

    def __len__(self) -> int:
        return len(self.bounds) - 1


def write_best_fit(
    drawing: Drawing, earlier: Drawn, num_sequences: int, sequence_length: int, writer: SequenceWriter, *, shuffled_by: str
) -> Drawn:
    """Draw documents that best-fit packing makes into so many sequences, and write these in a random order.

    Drawn is as much as makes that many sequences, in the ratios that the recipe names. Where that makes a few too many, those that hold the
    fewest tokens are left out.

    Args:
        shuffled_by: label of the sequences' order.

    Raises:
        TooLittleData: see `Drawing.check`.
    """
    budget = drawing.num_tokens(earlier) + num_sequences * sequence_length
    drawn, groups = earlier, list[_Bins]()
    # Groups that are packed apart may make a few sequences less than all would together: more is drawn for these.
    while missing := max(0, num_sequences - sum(map(len, groups))):
        before, drawn = drawn, _fitting(drawing, drawn, missing, sequence_length)
        drawing.check(drawn, earlier, budget)
        order = drawing.shuffled(drawn, before, last_stays=False)
        writer.count(order)
        groups += _packed(drawing.documents, order, sequence_length)
        del order
    bins = _joined(groups)
    del groups
    filled = np.add.reduceat(bins.count, bins.bounds[:-1], dtype=np.int64)
    kept = np.sort(np.argsort(filled, kind="stable")[len(bins) - num_sequences :])
    kept = kept[np.argsort(row_keys(shuffled_by, np.arange(num_sequences)), kind="stable")]
    lengths = np.diff(bins.bounds)
    for sequences in blocks(kept):
        bounds = np.cumsum([0, *lengths[sequences]])
        pieces = np.arange(bounds[-1]) + np.repeat(bins.bounds[sequences] - bounds[:-1], lengths[sequences])
        writer.append(bins.places[pieces], bins.begin[pieces], bins.count[pieces], bounds)
    return drawn


@dataclass(frozen=True)
class _Tried:
    """What so many tokens make."""

    num_tokens: int
    drawn: Drawn
    pieces: Ints
    """See `piece_lengths`."""
    num_sequences: int


def _fitting(drawing: Drawing, earlier: Drawn, num_sequences: int, sequence_length: int) -> Drawn:
    """The draws that make so many sequences, or the fewest that make more."""

    def tried(num_tokens: int, known: _Tried) -> _Tried:
        """What is known of other tokens is not counted again: the nearer they are, the less there is to count."""
        drawn = drawing.up_to(num_tokens, earlier, cross=False)
        both = tuple(map(min, known.drawn, drawn))
        more, fewer = (drawing.pieces_between(both, some, sequence_length) for some in (drawn, known.drawn))
        pieces = known.pieces + more - fewer
        return _Tried(num_tokens, drawn, pieces, num_best_fit_sequences(pieces))

    low = _Tried(drawing.num_tokens(earlier), earlier, np.zeros(sequence_length + 1, dtype=np.int64), 0)
    high = tried(low.num_tokens + num_sequences * sequence_length, low)
    while high.num_sequences < num_sequences:  # documents longer than sequences: the nearest to the end was one less
        low, high = high, tried(high.num_tokens + num_sequences * sequence_length, high)
    tries = 0
    while high.num_sequences > num_sequences and sum(high.drawn) - sum(low.drawn) > 1 and high.num_tokens - low.num_tokens > 1:
        # The number of sequences is nearly proportional to the tokens; where that leads nowhere, halve.
        tries += 1
        proportional = (num_sequences + 0.5 - low.num_sequences) / (high.num_sequences - low.num_sequences)
        between = round((high.num_tokens - low.num_tokens) * (0.5 if tries % 4 == 0 else min(proportional, 1)))
        guess = min(max(low.num_tokens + between, low.num_tokens + 1), high.num_tokens - 1)
        new = tried(guess, low if guess - low.num_tokens < high.num_tokens - guess else high)
        low, high = (new, high) if new.num_sequences < num_sequences else (low, new)
    return high.drawn


def _packed(documents: Documents, order: Places, sequence_length: int) -> Iterator[_Bins]:
    """Best-fit sequences of the documents, so many at a time that packing takes little memory: they are shuffled, so all groups are alike."""
    for places in blocks(order, _PACKED_TOGETHER):
        packed = best_fit(documents.num_tokens[places].astype(np.int64), sequence_length)
        yield _Bins(places[packed.document], packed.begin.astype(np.int32), packed.count.astype(np.int32), packed.bounds)


def _joined(groups: Sequence[_Bins]) -> _Bins:
    num_pieces = np.cumsum([0, *(len(group.places) for group in groups)])
    return _Bins(
        places=np.concatenate([group.places for group in groups]),
        begin=np.concatenate([group.begin for group in groups]),
        count=np.concatenate([group.count for group in groups]),
        bounds=np.concatenate([[0], *(first + group.bounds[1:] for first, group in zip(num_pieces, groups, strict=False))]),
    )
