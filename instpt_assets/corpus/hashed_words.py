"""The words of texts, and of n-grams of them, as hashes: what makes comparing texts fast.

Words are runs of letters and digits (Unicode) after NFKC and lower-casing, so that case, punctuation, white space and line breaks make no
difference. Words and n-grams are hashed by polynomials modulo 2**64, which numpy computes for all places of a text at once:

    hash(word)   = mix(sum of code_j * B**j)          over its code points, mix being the finaliser of splitmix64 (Steele et al. 2014)
    hash(n-gram) = sum of hash(word_j) * B**j         B odd, so that a difference of prefix sums can be divided by B**start
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from functools import cache, cached_property, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]
Places = npt.NDArray[np.int64]

_BASE = 0x9E3779B97F4A7C15  # odd; 2**64 divided by the golden ratio
_BLOCK = 1 << 18  # characters hashed at once: the arrays of a block stay in the processor's cache
_LAP = 1 << 12  # characters that the blocks of a long text share, so that an n-gram on the cut stands in one of them
_WORD = re.compile(r"[^\W_]+")


def normalized(text: str) -> str:
    """The text as it is compared: NFKC, lower case."""
    return (text if text.isascii() else unicodedata.normalize("NFKC", text)).lower()


def split_words(text: str) -> list[str]:
    """The words of a text as they are compared."""
    return _WORD.findall(normalized(text))


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


def blocks(texts: Sequence[str]) -> Iterator[Block]:
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
    return powers_of(_BASE, count), powers_of(pow(_BASE, -1, 1 << 64), count)


def powers_of(base: int, count: int) -> Hashes:
    """base**j modulo 2**64 for j below `count`."""
    factors = np.full(count, base, np.uint64)
    factors[:1] = 1
    return np.cumprod(factors, dtype=np.uint64)


def mixed(values: Hashes) -> Hashes:
    """The finaliser of splitmix64: every bit of the result depends on every bit of the value."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


@cache
def _letters() -> npt.NDArray[np.int8]:
    """For each code point whether it belongs to a word."""
    return np.frombuffer(bytes(chr(code).isalnum() for code in range(0x110000)), np.int8)
