"""Gopher's rules for documents and against repetition (Rae et al. 2021, section A1.1 and table A1), for many texts at once.

What the paper leaves open is settled here: words are what stands between white space, characters are those of words (or of lines), without
white space; lines and paragraphs count without the white space around them, and not at all if they are blank; a duplicate is what has stood
before in the same text, so the first of several equal ones is none.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from instpt_assets.corpus.words import Ngrams, Values, Words
from instpt_assets.recipe.cleaning import QualityRules, RepetitionRules

TOP, DUPLICATE = range(2, 5), range(5, 11)
"""Lengths of the n-grams whose most frequent one is looked at, and of those whose repeats are."""

Item = TypeVar("Item")


@dataclass(frozen=True)
class Rule:
    """A bound of a measure."""

    measure: str
    bound: float
    is_least: bool = False

    def broken(self, values: Values) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """Which of the values the rule does not allow."""
        return values < self.bound if self.is_least else values > self.bound

    def told(self, value: float) -> str:
        """Why a document is removed: the measure, its value and the bound."""
        return f"{self.measure}: {value:.4g}, {'at least' if self.is_least else 'at most'} {self.bound:g} allowed"


class Broken(NamedTuple):
    """The first rule that a text breaks."""

    step: str
    """`quality` or `repetition`."""
    reason: str


class Gopher:
    """The rules of a recipe; either set may be missing."""

    def __init__(self, quality: QualityRules | None, repetition: RepetitionRules | None) -> None:
        self._quality, self._repetition = quality, repetition

    def first_broken(self, texts: Sequence[str]) -> list[Broken | None]:
        """Of each text the first rule that it breaks, quality before repetition; None where it keeps all."""
        found: list[Broken | None] = [None] * len(texts)
        words = Words(texts)
        if self._quality is not None:
            _judge("quality", quality_rules(self._quality), measure_quality(texts, words, self._quality), found)
        if self._repetition is not None:
            _judge("repetition", repetition_rules(self._repetition), measure_repetition(texts, words), found)
        return found


def _judge(step: str, rules: Sequence[Rule], measures: Mapping[str, Values], found: list[Broken | None]) -> None:
    for rule in rules:
        values = measures[rule.measure]
        for index in np.flatnonzero(rule.broken(values)).tolist():
            if found[index] is None:
                found[index] = Broken(step, rule.told(float(values[index])))


def quality_rules(part: QualityRules) -> list[Rule]:
    """The bounds in the order in which they are looked at."""
    return [
        Rule("words", part.min_words, is_least=True),
        Rule("words", part.max_words),
        Rule("mean word length", part.min_mean_word_length, is_least=True),
        Rule("mean word length", part.max_mean_word_length),
        Rule("hash signs per word", part.max_hashes_per_word),
        Rule("ellipses per word", part.max_ellipses_per_word),
        Rule("lines with a bullet", part.max_bullet_lines),
        Rule("lines ending in an ellipsis", part.max_ellipsis_lines),
        Rule("words with a letter", part.min_alphabetic_words, is_least=True),
        Rule("different stop words", part.min_stop_words, is_least=True),
    ]


def repetition_rules(part: RepetitionRules) -> list[Rule]:
    """The bounds in the order in which they are looked at."""
    return [
        Rule("duplicate lines", part.max_duplicate_lines),
        Rule("duplicate paragraphs", part.max_duplicate_paragraphs),
        Rule("characters in duplicate lines", part.max_duplicate_line_characters),
        Rule("characters in duplicate paragraphs", part.max_duplicate_paragraph_characters),
        *(Rule(f"characters in the top {n}-gram", getattr(part, f"max_top_{n}_gram")) for n in TOP),
        *(Rule(f"characters in duplicate {n}-grams", getattr(part, f"max_duplicate_{n}_grams")) for n in DUPLICATE),
    ]


def measure_quality(texts: Sequence[str], words: Words, part: QualityRules) -> dict[str, Values]:
    """What the rules for documents bound, of each text."""
    num_words = np.maximum(words.counts, 1)
    lines = [_pieces(text, "\n") for text in texts]
    num_lines = np.maximum(_numbers(lines, len), 1)
    bullets, ellipses = part.bullets, ("…", "...")
    has_letter = pc.match_substring_regex(words.vocabulary, r"\p{L}").to_numpy(zero_copy_only=False)
    return {
        "words": words.counts.astype(np.float64),
        "mean word length": words.characters / num_words,
        "hash signs per word": _numbers(texts, lambda text: text.count("#")) / num_words,
        "ellipses per word": _numbers(texts, lambda text: text.count("...") + text.count("…")) / num_words,
        "lines with a bullet": _numbers(lines, lambda own: sum(line.startswith(bullets) for line in own)) / num_lines,
        "lines ending in an ellipsis": _numbers(lines, lambda own: sum(line.endswith(ellipses) for line in own)) / num_lines,
        "words with a letter": words.per_text(words.texts[has_letter[words.numbers]]) / num_words,
        "different stop words": _stop_words(words, part.stop_words),
    }


def measure_repetition(texts: Sequence[str], words: Words) -> dict[str, Values]:
    """What the rules against repetition bound, of each text: shares from 0 to 1."""
    lines = np.array([_duplicates(_pieces(text, "\n")) for text in texts]).reshape(-1, 2)
    paragraphs = np.array([_duplicates(_pieces(text, "\n\n")) for text in texts]).reshape(-1, 2)
    characters = np.maximum(words.characters, 1)
    measures = {
        "duplicate lines": lines[:, 0],
        "duplicate paragraphs": paragraphs[:, 0],
        "characters in duplicate lines": lines[:, 1],
        "characters in duplicate paragraphs": paragraphs[:, 1],
    }
    for ngrams in words.repeated_ngrams(DUPLICATE[-1]):
        name, count = _ngram_measure(ngrams)
        measures[name] = np.minimum(count / characters, 1.0)  # occurrences of the top n-gram may overlap
    return measures


def _ngram_measure(ngrams: Ngrams) -> tuple[str, Values]:
    if ngrams.n in TOP:
        return f"characters in the top {ngrams.n}-gram", ngrams.top_characters().astype(np.float64)
    return f"characters in duplicate {ngrams.n}-grams", ngrams.duplicate_characters()


def _numbers(items: Sequence[Item], count: Callable[[Item], int]) -> Values:
    return np.fromiter(map(count, items), np.float64, len(items))


def _stop_words(words: Words, stop_words: Sequence[str]) -> Values:
    """Of each text how many different ones of the stop words stand in it, letter case apart."""
    distinct = pa.array(dict.fromkeys(map(str.lower, stop_words)), pa.large_string())
    column_of = pc.index_in(pc.utf8_lower(words.vocabulary), distinct).fill_null(-1).to_numpy()[words.numbers]
    stands = np.zeros((len(words.counts), len(distinct)), bool)
    places = np.flatnonzero(column_of >= 0)
    stands[words.texts[places], column_of[places]] = True
    return stands.sum(axis=1).astype(np.float64)


def _pieces(text: str, separator: str) -> list[str]:
    """Lines or paragraphs that are not blank, without the white space around them."""
    return list(filter(None, map(str.strip, text.split(separator))))


def _duplicates(pieces: Sequence[str]) -> tuple[float, float]:
    """Which share of the pieces has stood before, and which share of their characters."""
    if len(set(pieces)) == len(pieces):
        return 0.0, 0.0
    seen: set[str] = set()
    number = characters = 0
    for piece in pieces:
        if piece in seen:
            number += 1
            characters += len(piece)
        seen.add(piece)
    return number / len(pieces), characters / sum(map(len, pieces))
