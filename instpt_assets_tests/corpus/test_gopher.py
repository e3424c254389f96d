"""Gopher's rules: the vectorised measures are those of a plain implementation, and each rule decides as the paper says."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from instpt_assets.corpus.gopher import Gopher, measure_quality, measure_repetition
from instpt_assets.corpus.words import Words, stable_order
from instpt_assets.recipe.cleaning import QualityRules, RepetitionRules

QUALITY = QualityRules()


def plain_quality(text: str) -> dict[str, float]:
    words, lines = text.split(), [line.strip() for line in text.split("\n") if line.strip()]
    n, num_lines = max(len(words), 1), max(len(lines), 1)
    return {
        "words": len(words),
        "mean word length": sum(len(word) for word in words) / n,
        "hash signs per word": text.count("#") / n,
        "ellipses per word": (text.count("...") + text.count("…")) / n,
        "lines with a bullet": sum(line[0] in "•‣*-" for line in lines) / num_lines,
        "lines ending in an ellipsis": sum(line.endswith(("...", "…")) for line in lines) / num_lines,
        "words with a letter": sum(any(c.isalpha() for c in word) for word in words) / n,
        "different stop words": len({word.lower() for word in words} & set(QUALITY.stop_words)),
    }


def plain_repetition(text: str) -> dict[str, float]:
    words = text.split()
    characters = max(sum(len(word) for word in words), 1)
    measures = {}
    for name, separator in (("lines", "\n"), ("paragraphs", "\n\n")):
        pieces = [piece.strip() for piece in text.split(separator) if piece.strip()]
        again = [piece for number, piece in enumerate(pieces) if piece in pieces[:number]]
        measures[f"duplicate {name}"] = len(again) / max(len(pieces), 1)
        measures[f"characters in duplicate {name}"] = sum(map(len, again)) / max(sum(map(len, pieces)), 1)
    for n in range(2, 11):
        ngrams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
        if n < 5:
            repeated = [(count, sum(map(len, ngram))) for ngram, count in Counter(ngrams).items() if count > 1]
            count, length = max(repeated, default=(0, 0))
            measures[f"characters in the top {n}-gram"] = min(count * length / characters, 1)
        else:
            seen: set[tuple[str, ...]] = set()
            covered: set[int] = set()
            for i, ngram in enumerate(ngrams):
                covered |= set(range(i, i + n)) if ngram in seen else set()
                seen.add(ngram)
            measures[f"characters in duplicate {n}-grams"] = sum(len(words[j]) for j in covered) / characters
    return measures


SOME_WORDS = st.sampled_from(
    ["a", "the", "be", "Of", "b1", "22", "#", "...", "…", "•", "-", "ab-…", "\u00a0", "日本", "\n", "\n\n", " \n \n"]
)
TEXTS = st.lists(st.lists(SOME_WORDS, max_size=60).map(" ".join), max_size=4)


@given(texts=TEXTS)
def test_the_measures_of_many_texts_are_those_of_a_plain_implementation(texts: list[str]) -> None:
    words = Words(texts)
    found = {**measure_quality(texts, words, QUALITY), **measure_repetition(texts, words)}
    for number, text in enumerate(texts):
        expected = {**plain_quality(text), **plain_repetition(text)}
        assert {name: float(values[number]) for name, values in found.items()} == pytest.approx(expected), text


def test_white_space_at_the_end_of_a_text_is_no_word() -> None:
    texts = ["be", "a be be a a ... the the be ab-…", "a the the the be be the the \n"]
    assert {tuple(Words(texts).counts.tolist()) for _ in range(2000)} == {(1, 10, 8)}


def test_real_texts_measure_the_same(shared_data: Path) -> None:
    texts = []
    for name, most in (("finance/openstax-economics", 6), ("biomedicine/pmc-fulltext-0000", 3), ("general/wikitext2", 6)):
        with zstandard.open(shared_data / f"corpora/{name}.jsonl.zst", "rt") as lines:
            texts += [json.loads(line)["text"][:12_000] for line, _ in zip(lines, range(most), strict=False)]
    words = Words(texts)
    found = {**measure_quality(texts, words, QUALITY), **measure_repetition(texts, words)}
    for number, text in enumerate(texts):
        assert {name: float(v[number]) for name, v in found.items()} == pytest.approx({**plain_quality(text), **plain_repetition(text)})


WORDS = [f"{'abcdefg'[i % 7] * (i % 5 + 1)}{i}" for i in range(200)]
"""Words of which none comes twice."""


def lines_of(words: list[str], each: int, begin: str = "", end: str = "") -> str:
    return "\n".join(begin + " ".join(words[i : i + each]) + end for i in range(0, len(words), each))


def with_stop_words(text: str) -> str:
    return f"The {text} of"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (with_stop_words(" ".join(WORDS)), None),
        (with_stop_words("few words"), "words: 4, at least 50 allowed"),
        (with_stop_words("a " * 98), "mean word length: 1.03, at least 3 allowed"),
        (with_stop_words(f"{'a' * 16} " * 98), "mean word length: 15.73, at most 10 allowed"),
        (with_stop_words(" ".join(WORDS) + " ####" * 198), "hash signs per word: 1.98, at most 0.1 allowed"),
        (with_stop_words(" ".join(WORDS[:98]) + " ....." * 50), "ellipses per word: 0.3333, at most 0.1 allowed"),
        (lines_of(["the", "of", *WORDS[:98]], 10, begin=" - "), "lines with a bullet: 1, at most 0.9 allowed"),
        (lines_of(["the", "of", *WORDS[:198]], 20, end="…"), "lines ending in an ellipsis: 1, at most 0.3 allowed"),
        (with_stop_words(" ".join(WORDS[:98]) + " 1234" * 50), "words with a letter: 0.6667, at least 0.8 allowed"),
        (" ".join(["the", "THE", *WORDS]), "different stop words: 1, at least 2 allowed"),
    ],
)
def test_quality_rules_and_the_reasons_that_they_give(text: str, reason: str | None) -> None:
    (broken,) = Gopher(QUALITY, None).first_broken([text])
    assert (broken and (broken.step, broken.reason)) == (reason and ("quality", reason))


SENTENCES = [" ".join(WORDS[i : i + 4]) for i in range(0, 200, 4)]


@pytest.mark.parametrize(
    ("text", "measure"),
    [
        ("\n\n".join(SENTENCES), None),
        ("\n".join([*SENTENCES, *["yes"] * 30]), "duplicate lines"),
        ("\n".join([*SENTENCES, " ".join(WORDS[:100]), " ".join(WORDS[:100])]), "characters in duplicate lines"),
        (" ".join(f"forty two {word}" for word in WORDS), "characters in the top 2-gram"),
        (" ".join(WORDS + WORDS[:60]), "characters in duplicate 5-grams"),
    ],
)
def test_repetition_rules(text: str, measure: str | None) -> None:
    (broken,) = Gopher(None, RepetitionRules()).first_broken([text])
    assert (broken and broken.reason.split(":")[0]) == measure and (broken is None or broken.step == "repetition")


def test_paragraphs_may_repeat_where_lines_do_not_count() -> None:
    text = "\n\n".join([*SENTENCES, *["yes"] * 30])
    (broken,) = Gopher(None, RepetitionRules(max_duplicate_lines=1, max_duplicate_line_characters=1)).first_broken([text])
    assert broken is not None and broken.reason == "duplicate paragraphs: 0.3625, at most 0.3 allowed"


def test_thresholds_and_stop_words_are_the_recipes() -> None:
    german = " ".join(f"der Satz{i} und die Woerter{i} stehen hier{i}" for i in range(12))
    rules = QualityRules(stop_words=("der", "die", "und"), min_stop_words=3)
    assert Gopher(rules, None).first_broken([german]) == [None]
    assert Gopher(QUALITY, None).first_broken([german]) != [None]
    assert Gopher(None, RepetitionRules(max_duplicate_lines=1, max_duplicate_line_characters=1)).first_broken(["a\nb\na\nb\na"]) != [None]


def test_keys_too_large_to_carry_their_places_are_ordered_alike() -> None:
    keys = np.array([7, 3, 7, 3, 0])
    assert stable_order(keys).tolist() == stable_order(keys << 59).tolist() == [4, 1, 3, 0, 2]
