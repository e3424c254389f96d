"""The words of a batch of texts as numbers, and which n-grams of them repeat within a text; exact, without a Python object a word.

A word is a run of characters other than white space. Equal words of a batch have equal numbers; the words of all texts stand in one array.

N-grams are found from shorter ones: an n-gram can only repeat where its first n-1 words do. So 2-grams are sorted for all words, and every
longer length only for the places that are left, few in ordinary text. A place's group of equal n-grams is numbered afresh each time, so that
the pair (number of the group, number of the next word) says exactly which (n+1)-gram stands there, without a hash.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Numbers = npt.NDArray[np.int64]
Values = npt.NDArray[np.float64]


class Words:
    """The words of a batch of texts.

    Attributes:
        vocabulary: the different words by number, as an array of Arrow (an empty one, if it is there, stands in no text).
        numbers: of each word (texts one after the other).
        texts: for each word the number of its text.
        counts: words of each text.
        lengths: characters of each word.
        characters: characters of the words of each text, without white space.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        # Stripped, because Arrow may read on behind white space at the end of a text, where anything may stand (seen in 26.0).
        stripped = pa.array([text.strip() for text in texts], pa.large_string())
        split = pc.utf8_split_whitespace(stripped)  # at the same characters as `str.split`
        words = split.flatten().dictionary_encode()
        numbers = words.indices.to_numpy().astype(np.int64)
        lengths = pc.utf8_length(words.dictionary).to_numpy().astype(np.int64)
        self.vocabulary = words.dictionary
        self.texts = np.repeat(np.arange(len(texts)), np.diff(split.offsets.to_numpy()))
        # An empty text is split into one empty word.
        is_word = lengths[numbers] > 0
        self.numbers, self.texts = numbers[is_word], self.texts[is_word]
        self.counts = np.bincount(self.texts, minlength=len(texts))
        self.lengths = lengths[self.numbers]
        self._sums = np.concatenate([[0], np.cumsum(self.lengths)])
        self._ends = np.cumsum(self.counts)
        self.characters = self._sums[self._ends] - self._sums[self._ends - self.counts]

    def characters_between(self, starts: Numbers, ends: Numbers) -> Numbers:
        """Characters of the words from each start to before each end, without white space."""
        return self._sums[ends] - self._sums[starts]

    def per_text(self, texts: Numbers, weights: npt.NDArray[Any] | None = None) -> Values:
        """Sums over the entries of each text."""
        return np.bincount(texts, weights, len(self.counts)).astype(np.float64)

    def repeated_ngrams(self, longest: int) -> Iterator["Ngrams"]:
        """The n-grams that occur more than once in their text, for n = 2 up to the longest."""
        places, groups = np.arange(len(self.numbers)), self.numbers
        left = self._ends[self.texts] - places  # words up to the end of the text
        for n in range(2, longest + 1):
            inside = np.flatnonzero(left[places] >= n)
            places, groups = places[inside], groups[inside]
            keys = groups * len(self.vocabulary) + self.numbers[places + n - 1]
            order = stable_order(keys)
            keys, places = keys[order], places[order]
            first = np.ones(len(places), bool)
            first[1:] = (keys[1:] != keys[:-1]) | (self.texts[places[1:]] != self.texts[places[:-1]])
            last = np.append(first[1:], True)[: len(first)]
            repeats = ~(first & last)
            places, first = places[repeats], first[repeats]
            groups = np.cumsum(first) - 1
            yield Ngrams(self, n, places, first, groups)


@dataclass(frozen=True)
class Ngrams:
    """The n-grams of one length that occur more than once in their text.

    Attributes:
        words: of which they are.
        n: their length.
        places: number of the first word of each occurrence, equal ones together, each group from front to back.
        first: whether it is the first occurrence in its text.
        groups: number of the group of equal ones.
    """

    words: Words
    n: int
    places: Numbers
    first: npt.NDArray[np.bool_]
    groups: Numbers

    def top_characters(self) -> Numbers:
        """Of each text the characters in all occurrences of its most frequent n-gram (of several, the longest); 0 where none repeats."""
        first = self.places[self.first]
        occurrences = np.bincount(self.groups)
        length = self.words.characters_between(first, first + self.n)
        best = np.zeros(len(self.words.counts), np.int64)
        np.maximum.at(best, self.words.texts[first], occurrences << 32 | length)
        return (best >> 32) * (best & 0xFFFFFFFF)

    def duplicate_characters(self) -> Values:
        """Of each text the characters in n-grams that have stood before in it; each counts once."""
        places = np.sort(self.places[~self.first])
        ends = places + self.n
        ends[:-1] = np.minimum(ends[:-1], places[1:])  # up to where the next one begins
        return self.words.per_text(self.words.texts[places], self.words.characters_between(places, ends))


def stable_order(keys: Numbers) -> Numbers:
    """Places of the keys in ascending order, equal ones from front to back."""
    if not len(keys):
        return keys
    bits = (len(keys) - 1).bit_length()
    if int(keys.max()).bit_length() + bits > 63:
        return np.argsort(keys, kind="stable")
    # Key and place in one number: numpy sorts plain numbers many times faster than it finds their order.
    return np.sort(keys << bits | np.arange(len(keys))) & ((1 << bits) - 1)
