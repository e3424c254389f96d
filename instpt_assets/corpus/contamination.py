"""Which texts hold words of an evaluation example: the index of the examples' n-grams, and how texts are compared with it.

Comparison is by words: runs of letters and digits (Unicode) after NFKC and lower-casing, so that case, punctuation, white space and line
breaks make no difference. Words and n-grams are hashed by polynomials modulo 2**64, which numpy computes for all places of a text at once:

    hash(word)   = mix(sum of code_j * B**j)          over its code points, mix being the finaliser of splitmix64 (Steele et al. 2014)
    hash(n-gram) = sum of hash(word_j) * B**j         B odd, so that a difference of prefix sums can be divided by B**start

Every n-gram that a text shares with the index by hash is compared again word by word, so a collision of hashes is never a hit.

Files of an index, in the folder of the artifact `evaluation_examples`: `data-*.parquet` (`EXAMPLES`, row by row what is compared), and for
every length L `ngrams-<L>.npy`: two rows of uint64, the sorted hashes of n-grams of L words, and where each one stands (`as_places`).
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from functools import cache, cached_property, lru_cache
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

Hashes = npt.NDArray[np.uint64]
Places = npt.NDArray[np.int64]

EXAMPLES = pa.schema([("task", pa.string()), ("example_id", pa.string()), ("text", pa.string())])
"""An evaluation example: its parts (question, context, options, …) stand in `text` as lines. One example may have several rows."""

OVERLAPS = pa.schema([("document_id", pa.string()), *((name, pa.string()) for name in ("task", "example_id", "words"))])
"""What was removed for its overlap with an evaluation example."""
CONTAMINATED = "contaminated"
"""Begins the reason of what was removed for it."""

MAX_SHOWN_WORDS = 60
"""So many words of an overlap are told."""

_BASE = 0x9E3779B97F4A7C15  # odd; 2**64 divided by the golden ratio
_BLOCK = 1 << 18  # characters compared at once: the arrays of a block stay in the processor's cache
_LAP = 1 << 12  # characters that the blocks of a long text share, so that an n-gram on the cut stands in one of them
_SLOTS = 32  # bits of the table that tells most absent hashes, for each present one
_WORD = re.compile(r"[^\W_]+")


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
        for block in _blocks(texts):
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


def normalized(text: str) -> str:
    """The text as it is compared: NFKC, lower case."""
    return (text if text.isascii() else unicodedata.normalize("NFKC", text)).lower()


def split_words(text: str) -> list[str]:
    """The words of a text as they are compared."""
    return _WORD.findall(normalized(text))


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


class Block:
    """Consecutive texts, or a piece of one, as arrays over their words.

    Attributes:
        first: number of the first text.
        text: the texts joined by line ends.
        codes: its code points.
        words: the words' hashes.
        starts: where the words begin in `text`.
        owners: for each word the number of its text, counted from `first`.
    """

    def __init__(self, texts: Sequence[str], first: int) -> None:
        self.first = first
        self.text = "\n".join(texts)
        lengths = np.fromiter(map(len, texts), np.int64, len(texts))
        self._num_texts = len(texts)
        self.codes = code_points(self.text)
        self.words, self.starts, self._ends = word_hashes(self.codes)
        words_before = np.searchsorted(self.starts, np.cumsum(lengths + 1))
        self.owners = np.repeat(np.arange(len(texts)), np.diff(words_before, prepend=0))

    @cached_property
    def bounds(self) -> Places:
        """First word of each text, and at the end the number of words."""
        return np.searchsorted(self.owners, np.arange(self._num_texts + 1))

    @cached_property
    def lines(self) -> Places:
        """For each word the number of its line; lines without words do not count."""
        ends = np.flatnonzero(self.codes == ord("\n"))
        return np.unique(np.searchsorted(ends, self.starts), return_inverse=True)[1]

    @cached_property
    def line_bounds(self) -> Places:
        """First word of each line, and at the end the number of words."""
        return np.append(np.flatnonzero(np.diff(self.lines, prepend=-1)), len(self.words))

    @cached_property
    def _sums(self) -> Hashes:
        return _prefix_sums(self.words)

    def ngram_hashes(self, length: int) -> Hashes:
        """Hash of the n-gram of `length` words at every word that has so many from it on, those that go on in the next text too."""
        count = max(0, len(self.words) - length + 1)
        return (self._sums[length : length + count] - self._sums[:count]) * _powers(len(self.words))[1][:count]

    def shown(self, start: int, length: int) -> list[str]:
        """Words from `start`, at most `length`."""
        chosen = slice(start, start + length)
        return [self.text[a:b] for a, b in zip(self.starts[chosen].tolist(), self._ends[chosen].tolist(), strict=True)]


def _blocks(texts: Sequence[str]) -> Iterator[Block]:
    """The texts, normalized, in blocks of about `_BLOCK` characters; a longer one in pieces."""
    waiting: list[str] = []
    first = size = 0
    for number, text in enumerate(texts):
        own = normalized(text)
        if waiting and size + len(own) > _BLOCK:
            yield Block(waiting, first)
            waiting, size = [], 0
        if len(own) > _BLOCK:
            yield from (Block([own[place : place + _BLOCK]], number) for place in range(0, len(own) - _LAP, _BLOCK - _LAP))
            continue
        if not waiting:
            first = number
        waiting.append(own)
        size += len(own) + 1
    if waiting:
        yield Block(waiting, first)


def code_points(text: str) -> npt.NDArray[Any]:
    """The characters' code points (uint8 or uint32)."""
    if text.isascii():
        return np.frombuffer(text.encode("ascii"), np.uint8)
    return np.frombuffer(text.encode("utf-32-le", errors="surrogatepass"), np.uint32)


def word_hashes(codes: npt.NDArray[Any]) -> tuple[Hashes, Places, Places]:
    """Hash, start and end (in characters) of every word of a normalized text, given as code points."""
    inside = np.zeros(len(codes) + 2, np.int8)
    np.take(_letters(), codes, out=inside[1:-1], mode="clip")
    edges = np.diff(inside)
    starts, ends = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    return mixed(span_hashes(codes, starts, ends)), starts, ends


def span_hashes(words: npt.NDArray[Any], starts: Places, ends: Places) -> Hashes:
    """Hash of each span of words (or of a word's code points), from its start to before its end."""
    sums = _prefix_sums(words)
    return (sums[ends] - sums[starts]) * _powers(len(words))[1][starts]


def _prefix_sums(values: npt.NDArray[Any]) -> Hashes:
    """Sums of value_j * B**j over all j before each place, modulo 2**64."""
    sums = np.zeros(len(values) + 1, np.uint64)
    np.cumsum(values * _powers(len(values))[0], out=sums[1:], dtype=np.uint64)
    return sums


def _powers(count: int) -> tuple[Hashes, Hashes]:
    """B**j and B**-j modulo 2**64 for j below `count`."""
    powers, inverses = _all_powers(max(_BLOCK, 1 << max(0, count - 1).bit_length()))
    return powers[:count], inverses[:count]


@lru_cache(4)
def _all_powers(count: int) -> tuple[Hashes, Hashes]:
    def series(base: int) -> Hashes:
        factors = np.full(count, base, np.uint64)
        factors[0] = 1
        return np.cumprod(factors, dtype=np.uint64)

    return series(_BASE), series(pow(_BASE, -1, 1 << 64))


def mixed(values: Hashes) -> Hashes:
    """The finaliser of splitmix64: every bit of the result depends on every bit of the value."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


@cache
def _letters() -> npt.NDArray[np.int8]:
    """For each code point whether it belongs to a word."""
    return np.frombuffer(bytes(chr(code).isalnum() for code in range(0x110000)), np.int8)
