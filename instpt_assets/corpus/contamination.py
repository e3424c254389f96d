"""Which texts hold words of an evaluation example: the index of the examples' n-grams, and how texts are compared with it.

Texts are compared by hashed n-grams of their words (`hashed_words`). Every n-gram that a text shares with the index by hash is compared again
word by word, so a collision of hashes is never a hit.

Files of an index, in the folder of the artifact `evaluation_examples`: `data-*.parquet` (`EXAMPLES`, row by row what is compared), and for
every length L `ngrams-<L>.npy`: two rows of uint64, the sorted hashes of n-grams of L words, and where each one stands (`as_places`).
"""

from collections.abc import Iterator, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from instpt_assets.corpus.hashed_words import Block, Hashes, Places, blocks, split_words

EXAMPLES = pa.schema([("task", pa.string()), ("example_id", pa.string()), ("text", pa.string())])
"""An evaluation example: its parts (question, context, options, …) stand in `text` as lines. One example may have several rows."""

OVERLAPS = pa.schema([("document_id", pa.string()), *((name, pa.string()) for name in ("task", "example_id", "words"))])
"""What was removed for its overlap with an evaluation example."""
CONTAMINATED = "contaminated"
"""Begins the reason of what was removed for it."""

MAX_SHOWN_WORDS = 60
"""So many words of an overlap are told."""

_SLOTS = 32  # bits of the table that tells most absent hashes, for each present one


class Overlap(NamedTuple):
    """What a text has in common with an evaluation example."""

    task: str
    example_id: str
    words: str
    """The overlapping words, as they are compared: normalized, separated by spaces; the first `MAX_SHOWN_WORDS` of them."""


class ContaminationIndex:
    """The n-grams of all evaluation examples, memory-mapped: many processes share its pages."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ngrams = {
            int(path.stem.split("-")[1]): np.asarray(np.load(path, mmap_mode="r")) for path in sorted(folder.glob("ngrams-*.npy"))
        }
        self._tables = {length: _BitTable(hashes[0]) for length, hashes in self._ngrams.items() if hashes.shape[1]}
        self._words_of = lru_cache(4096)(lambda row: split_words(self._examples["text"][row]))

    @classmethod
    def read(cls, folder: Path) -> Self:
        """The index in a local folder of the artifact `evaluation_examples`.

        Raises:
            ValueError: there is none.
        """
        if next(folder.glob("ngrams-*.npy"), None) is None:
            raise ValueError(f"{folder} holds no index of evaluation examples (ngrams-*.npy): materialize evaluation_examples again")
        return cls(folder)

    def find(self, texts: Sequence[str]) -> list[Overlap | None]:
        """The first overlap of each text with an evaluation example, None where there is none.

        Texts of any number and length; those of a call are compared together, so many short ones cost little more than one long one.
        """
        found: list[Overlap | None] = [None] * len(texts)
        for block in blocks(texts):
            for index, overlap in self._search(block):
                if found[index] is None:
                    found[index] = overlap
        return found

    def _search(self, block: "Block") -> Iterator[tuple[int, Overlap]]:
        """First overlap of each text of the block that has one."""
        hits = sorted(hit for length in self._tables for hit in self._candidates(block, length))
        done: set[int] = set()
        for start, length, entry in hits:
            owner = int(block.owners[start])
            if owner not in done and (overlap := self._verified(block, start, length, entry)) is not None:
                done.add(owner)
                yield block.first + owner, overlap

    def _candidates(self, block: "Block", length: int) -> Iterator[tuple[int, int, int]]:
        """Places of the block whose hash stands in the index: word, length of the n-gram, index entry."""
        hashes = block.ngram_hashes(length)
        starts = np.flatnonzero(self._tables[length].may_hold(hashes))
        starts = starts[block.owners[starts] == block.owners[starts + length - 1]]
        known = self._ngrams[length][0]
        entries = np.searchsorted(known, hashes[starts])
        same = known[np.minimum(entries, len(known) - 1)] == hashes[starts]
        starts, entries = starts[same], entries[same]
        for start, entry in zip(starts.tolist(), entries.tolist(), strict=True):
            while entry < len(known) and known[entry] == hashes[start]:
                yield start, length, entry
                entry += 1

    def _verified(self, block: "Block", start: int, length: int, entry: int) -> Overlap | None:
        """The overlap at this place, if the words are the same: those of the n-gram, or of the whole example where only that is evidence."""
        row, offset, whole = _at(int(self._ngrams[length][1, entry]))
        words = self._words_of(row)
        if whole:
            start, offset, length = start - offset, 0, len(words)
        owner = block.owners[min(max(start, 0), len(block.owners) - 1)]
        last = start + length - 1
        if (
            start < 0
            or last >= len(block.owners)
            or block.owners[last] != owner
            or block.shown(start, length) != words[offset : offset + length]
        ):
            return None
        while (
            length < MAX_SHOWN_WORDS
            and offset + length < len(words)
            and start + length < len(block.owners)
            and block.owners[start + length] == owner
            and block.shown(start + length, 1) == [words[offset + length]]
        ):
            length += 1
        task, example_id = (self._examples[name][row] for name in ("task", "example_id"))  # a select takes a millisecond
        return Overlap(task, example_id, " ".join(words[offset : offset + min(length, MAX_SHOWN_WORDS)]))

    @cached_property
    def _examples(self) -> pl.DataFrame:
        """Read when the first hash is found in a text."""
        return pl.read_parquet(self._folder / "data-*.parquet", columns=EXAMPLES.names)


def as_places(rows: Places, offsets: Places, *, whole: bool) -> Hashes:
    """Where n-grams stand: row of the examples' table, first word, and whether only all words of the row together are evidence."""
    return (rows << 32 | offsets << 1 | whole).astype(np.uint64)


def _at(place: int) -> tuple[int, int, bool]:
    return place >> 32, (place & 0xFFFFFFFF) >> 1, bool(place & 1)


class _BitTable:
    """Tells most hashes that are not among the given ones (sorted, at least one), at one memory access each (a Bloom filter of one function)."""

    def __init__(self, hashes: Hashes) -> None:
        bits = max(10, (len(hashes) * _SLOTS - 1).bit_length())
        self._shift = np.uint64(64 - bits)
        slots = hashes >> self._shift
        places = slots >> np.uint64(3)  # in order, as the hashes are: those of a byte stand together
        first = np.flatnonzero(np.diff(places, prepend=places[0] + np.uint64(1)))
        self._table = np.zeros(1 << (bits - 3), np.uint8)
        self._table[places[first]] = np.bitwise_or.reduceat(_bit(slots), first)

    def may_hold(self, hashes: Hashes) -> npt.NDArray[np.bool_]:
        slots = hashes >> self._shift
        return (self._table[slots >> np.uint64(3)] & _bit(slots)) != 0


def _bit(slots: Hashes) -> npt.NDArray[np.uint8]:
    return np.left_shift(np.uint8(1), (slots & np.uint64(7)).astype(np.uint8))
