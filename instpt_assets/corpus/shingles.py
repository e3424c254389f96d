"""Runs of words (shingles) of many texts at once, as 64-bit hashes that are the same on every machine and in every Python.

Words are runs of letters, marks, numbers and underscores in lower case, of at most 256 characters; kana and ideographs are words alone.
Which characters these are, Unicode 3.2 says, that every Python carries unchanged beside its own; what came later, and all above U+FFFF,
counts as letters. All arithmetic is modulo 2**64:

- a word of the characters c[0], c[1], … is `mix(sum(c[i] * A**i))`, with A odd;
- a run of the words w[0], w[1], … is `mix(sum(w[i] * B**i))`, with B odd;
- `mix` is the finalizer of SplitMix64 (Steele, Lea and Flood 2014), after which each bit depends on all bits.

Two different words, or runs, have the same hash with a probability of about 2**-64.
"""

import hashlib
import unicodedata
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import numpy as np

from instpt_assets.corpus.hashed_words import Hashes, mixed, powers_of

_Places = np.ndarray[Any, np.dtype[np.int64]]
_Characters = np.ndarray[Any, np.dtype[np.uint32]]

_A = 0x9E3779B97F4A7C15
_B = 0xD1342543DE82EF95
_MODULUS = 1 << 64
_LONGEST_WORD = 256
_BLOCK = 1 << 15
"""Characters that are hashed at once: what is computed of them stays in a core's cache."""
_KANA, _LAST_IDEOGRAPH, _MORE_IDEOGRAPHS = 0x3040, 0x9FFF, 0x20000


def shingles(texts: Sequence[str], words: int) -> tuple[Hashes, Hashes]:
    """The hashes of all runs of so many words of each text, repeated ones too.

    A text of fewer words has one, of all its words; a text without words has one, of its characters.

    Args:
        texts: any number, of any length.
        words: of a run, at least one.

    Returns:
        The hashes of all texts one after the other, and where those of each text begin: one offset a text, and the number of all.
    """
    runs: list[Hashes] = []
    for block in _blocks(texts):
        hashes, starts = _words(block)
        joined = _runs(hashes, words)
        for text, start, end in zip(block, starts, starts[1:], strict=False):
            if end - start >= words:
                runs.append(joined[start : end - words + 1])
            elif end > start:
                runs.append(_runs(hashes[start:end], end - start))
            else:
                digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
                runs.append(np.frombuffer(digest, dtype="<u8", count=1).astype(np.uint64))
    offsets = np.zeros(len(runs) + 1, dtype=np.uint64)
    np.cumsum([len(found) for found in runs], out=offsets[1:])
    return np.concatenate(runs or [np.empty(0, dtype=np.uint64)]), offsets


def _blocks(texts: Sequence[str]) -> Iterator[list[str]]:
    """Several texts at a time; a long one is a block of its own."""
    block: list[str] = []
    characters = 0
    for text in texts:
        if block and characters + len(text) > _BLOCK:
            yield block
            block, characters = [], 0
        block.append(text)
        characters += len(text)
    if block:
        yield block


def _runs(hashes: Hashes, words: int) -> Hashes:
    """Of all runs of so many words."""
    number = max(len(hashes) - words + 1, 0)
    sums = np.zeros(number, dtype=np.uint64)
    for place, power in enumerate(powers_of(_B, words)):
        sums += hashes[place : place + number] * power
    return mixed(sums)


def _words(texts: Sequence[str]) -> tuple[Hashes, list[int]]:
    """The hashes of all words, and at which of them each text begins; behind those the number of words."""
    codes = np.frombuffer("\n".join(texts).encode("utf-32-le", "surrogatepass"), dtype="<u4")
    folded = _folded().take(codes, mode="clip")  # what lies above the table is its last entry …
    highest = int(codes.max(initial=0))
    if highest >= len(_folded()):
        folded = np.where(codes >= len(_folded()), codes, folded)  # … and stands for itself
    starts, ends = _places(folded, highest)
    hashes = np.empty(len(starts), dtype=np.uint64)
    powers, inverses = _power_tables()
    first = 0
    while first < len(starts):
        origin = starts[first]
        last = int(np.searchsorted(ends, origin + _BLOCK + _LONGEST_WORD, side="right"))
        # A word's sum is a difference of running sums, divided by the power at which it begins.
        characters = folded[origin : ends[last - 1]]
        sums = np.zeros(len(characters) + 1, dtype=np.uint64)
        np.cumsum(characters * powers[: len(characters)], out=sums[1:])
        begins = starts[first:last] - origin
        hashes[first:last] = (sums[ends[first:last] - origin] - sums[begins]) * inverses[begins]
        first = last
    text_starts = np.cumsum([0, *(len(text) + 1 for text in texts)])
    return mixed(hashes), np.searchsorted(starts, text_starts).tolist()


def _places(folded: _Characters, highest: int) -> tuple[_Places, _Places]:
    """Where words begin and end (the character behind)."""
    inside = np.zeros(len(folded) + 2, dtype=np.int8)
    np.not_equal(folded, 0, out=inside[1:-1].view(bool))
    changes = inside[1:] != inside[:-1]
    if highest < _KANA:
        edges = np.flatnonzero(changes)
        starts, ends = edges[::2], edges[1::2]
    else:
        alone = np.zeros(len(folded) + 2, dtype=bool)
        alone[1:-1] = ((folded >= _KANA) & (folded <= _LAST_IDEOGRAPH)) | (folded >= _MORE_IDEOGRAPHS)
        cuts = changes | alone[1:] | alone[:-1]
        within = inside.astype(bool)
        starts, ends = np.flatnonzero(cuts & within[1:]), np.flatnonzero(cuts & within[:-1])
    lengths = ends - starts
    if lengths.max(initial=0) > _LONGEST_WORD:
        pieces = -(-lengths // _LONGEST_WORD)
        place = np.arange(pieces.sum()) - np.repeat(np.cumsum(pieces) - pieces, pieces)
        starts = np.repeat(starts, pieces) + place * _LONGEST_WORD
        ends = np.minimum(starts + _LONGEST_WORD, np.repeat(ends, pieces))
    return starts, ends


@cache
def _power_tables() -> tuple[Hashes, Hashes]:
    """The powers of A by which the characters of a block are multiplied, and their inverses."""
    number = _BLOCK + _LONGEST_WORD
    return powers_of(_A, number), powers_of(pow(_A, -1, _MODULUS), number)


@cache
def _folded() -> _Characters:
    """Of each character up to U+FFFF its lower case; 0 where it is no part of a word."""
    category = unicodedata.ucd_3_2_0.category
    table = np.arange(1 << 16, dtype=np.uint32)
    for code in range(len(table)):
        character = chr(code)
        kind, lower = category(character), character.lower()
        if kind != "Cn" and kind[0] not in "LMN" and character != "_":
            table[code] = 0
        elif kind == "Lu" and len(lower) == 1:  # how a character that Unicode has is lowered never changes
            table[code] = ord(lower)
    return table
