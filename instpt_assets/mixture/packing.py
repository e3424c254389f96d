"""Packing: documents of any length to training sequences of one length.

- Concatenate and cut (Brown et al. 2020, appendix B): no padding, but a document is cut wherever a sequence ends.
- Best-fit decreasing (Ding et al. 2024, "Fewer Truncations Improve Language Modeling"): a document that fits into a sequence is never
  cut; each, the longest first, goes where it leaves the least room, and what room is left in the end is padding.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Packed:
    """Sequences, made up of pieces of documents."""

    document: Ints
    """Of each piece [pieces]: its document's position among those given."""
    begin: Ints
    """[pieces]: its first token, counted from the document's begin."""
    count: Ints
    """[pieces]: its tokens."""
    bounds: Ints
    """[sequences + 1]: pieces bounds[i] … bounds[i + 1] - 1 make up sequence i."""


def concatenate(tokens: Ints, sequence_length: int) -> Packed:
    """Documents one behind the other, cut every `sequence_length` tokens; the last sequence is full or left off.

    Args:
        tokens: of each document [documents].
        sequence_length: tokens a sequence.
    """
    ends = np.cumsum(tokens, dtype=np.int64)
    num_sequences = (int(ends[-1]) if len(ends) else 0) // sequence_length
    ends = np.minimum(ends, num_sequences * sequence_length)
    starts = np.concatenate([[0], ends[:-1]])[: len(ends)]
    first = starts // sequence_length
    num_pieces = np.where(ends > starts, (ends - 1) // sequence_length - first + 1, 0)
    document, number = _pieces(num_pieces)
    sequence = first[document] + number
    begin = np.maximum(sequence * sequence_length, starts[document])
    return Packed(
        document=document,
        begin=begin - starts[document],
        count=np.minimum((sequence + 1) * sequence_length, ends[document]) - begin,
        bounds=np.searchsorted(sequence, np.arange(num_sequences + 1)),
    )


def best_fit(tokens: Ints, sequence_length: int) -> Packed:
    """Best-fit decreasing: only documents longer than a sequence are cut, into full sequences and a rest that is packed as others are.

    Full sequences come first; the pieces of a sequence stand in the order of the documents given. Documents of one length are alike, so
    the work is done on the histogram of lengths: O(sequence_length log sequence_length) decisions, whatever the number of documents.

    Args:
        tokens: of each document [documents].
        sequence_length: tokens a sequence; what a sequence's pieces leave of it is padding.
    """
    document, number = _pieces(-(-tokens // sequence_length))  # full sequences and a rest
    begin = number * sequence_length
    count = np.minimum(tokens[document] - begin, sequence_length)

    rank = np.argsort((sequence_length - count).astype(np.min_scalar_type(sequence_length)), kind="stable")  # the longest first
    fills = list(_fills(np.bincount(count, minlength=sequence_length + 1), sequence_length))
    bin_ = np.empty(len(document), dtype=np.int64)
    bin_[rank] = np.concatenate([np.repeat(np.arange(fill.first, fill.end), fill.each) for fill in fills] or [np.empty(0, np.int64)])
    # By bin, then as given: sorting both in one number takes a fraction of a stable sort of indices.
    keyed = np.sort(bin_ << 32 | np.arange(len(document)))
    by_bin = keyed & 0xFFFFFFFF
    num_sequences = max((fill.end for fill in fills), default=0)
    return Packed(
        document=document[by_bin],
        begin=begin[by_bin],
        count=count[by_bin],
        bounds=np.searchsorted(keyed >> 32, np.arange(num_sequences + 1)),
    )


def piece_lengths(tokens: npt.NDArray[Any], sequence_length: int) -> Ints:
    """How many pieces of each length [sequence_length + 1] `best_fit` cuts these documents into; of no tokens there is none."""
    long = tokens[tokens > sequence_length]
    found = np.bincount(np.minimum(tokens, sequence_length), minlength=sequence_length + 1)
    found += np.bincount(long % sequence_length, minlength=sequence_length + 1)
    found[sequence_length] += int((long // sequence_length - 1).sum(dtype=np.int64))
    found[0] = 0
    return found


def num_best_fit_sequences(pieces: Ints) -> int:
    """How many sequences `best_fit` makes of pieces of these lengths [sequence_length + 1]."""
    return max((fill.end for fill in _fills(pieces, len(pieces) - 1)), default=0)


def _pieces(num_pieces: Ints) -> tuple[Ints, Ints]:
    """The document of each piece, and which of the document's pieces it is."""
    document = np.repeat(np.arange(len(num_pieces)), num_pieces)
    first = np.cumsum(num_pieces) - num_pieces
    return document, np.arange(len(document)) - first[document]


@dataclass(frozen=True)
class _Fill:
    """Bins `first` … `end` - 1 take `each` pieces of the length whose turn it is."""

    first: int
    end: int
    each: int


def _fills(histogram: Ints, sequence_length: int) -> Iterator[_Fill]:
    """Best-fit decreasing over groups of alike pieces and groups of alike bins.

    A bin that takes one piece has less room than before, so it is the best fit for the next of the same length too, until it has no
    room for it: all bins of a group take as many as go into them.

    Args:
        histogram: pieces of each length [sequence_length + 1].
    """
    groups: dict[int, list[tuple[int, int]]] = {}  # ranges of bins by their room
    occupied = 0  # its bit r is set if there are bins with room r
    num_bins = 0
    for length in range(sequence_length, 0, -1):
        left = int(histogram[length])
        while left:
            fitting = occupied >> length << length
            if fitting:
                room = (fitting & -fitting).bit_length() - 1
                first, end = groups[room].pop()
                if not groups[room]:
                    del groups[room]
                    occupied ^= 1 << room
            else:
                room, first = sequence_length, num_bins
                end = num_bins = num_bins + -(-left // (sequence_length // length))
            each = min(left, room // length)
            taking = min(end - first, left // each)
            yield _Fill(first, first + taking, each)
            left -= taking * each
            for rest, begin, stop in ((room - each * length, first, first + taking), (room, first + taking, end)):
                if begin < stop:
                    groups.setdefault(rest, []).append((begin, stop))
                    occupied |= 1 << rest
