"""Shingles: which words there are, and that their hashes never change."""

import re
import sys

import numpy as np
import pytest

from instpt_assets.corpus.shingles import shingles

MODULUS = 1 << 64


def of(text: str, words: int) -> list[int]:
    hashes, offsets = shingles([text], words)
    assert offsets.tolist() == [0, len(hashes)]
    return hashes.tolist()


def mix(value: int) -> int:
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 % MODULUS
    value = (value ^ (value >> 27)) * 0x94D049BB133111EB % MODULUS
    return value ^ (value >> 31)


def total(values: list[int], base: int) -> int:
    return mix(sum(value * pow(base, place, MODULUS) for place, value in enumerate(values)) % MODULUS)


def slowly(text: str, words: int) -> list[int]:
    """The documented hash, word after word."""
    hashes = [total([ord(character) for character in word], 0x9E3779B97F4A7C15) for word in re.findall(r"\w+", text.lower())]
    number = min(words, len(hashes))
    return [total(hashes[start : start + number], 0xD1342543DE82EF95) for start in range(len(hashes) - number + 1) if number]


def test_hashes_are_those_that_are_documented_in_texts_of_any_length_together_and_alone() -> None:
    random = np.random.default_rng(0)
    vocabulary = ["Trial", "β-blockers", "naïve", "p_value", "0.05", "ÉTÉ", "a", "(the", "end).", "x" * 250, "“quoted”", "\n\n"]
    texts = [" ".join(random.choice(vocabulary, size)) for size in (1, 3, 4, 20, 0, 9000, 7, 300, 20_000)]
    for words in (1, 5):
        hashes, offsets = shingles(texts, words)
        for text, start, end in zip(texts, offsets, offsets[1:], strict=False):
            assert hashes[int(start) : int(end)].tolist() == (slowly(text, words) or of(text, words))


def test_words_of_scripts_without_spaces_are_their_characters() -> None:
    assert len(of("患者接受治疗。", 1)) == 6 and len(of("これは text です", 1)) == 6
    assert of("患者 接受", 2) == of("患者接受", 2)
    assert len(of("𠮷野家 ready", 1)) == 4


def test_few_words_count_together_and_none_by_the_characters() -> None:
    assert of("Two Words!", 3) == of("two\nwords", 3) != of("words two", 3)
    assert len(of("", 3)) == 1 and of("!!!", 3) == of("!!!", 3) != of("???", 3)
    assert shingles([], 3)[1].tolist() == [0]


def test_a_run_without_separators_is_cut_into_words() -> None:
    whole = "ab" * 1_000_000
    assert len(of(whole, 1)) == -(-2_000_000 // 256)
    assert len(set(of(whole, 2)) & set(of(whole + "c", 2))) >= 1


@pytest.mark.skipif(sys.byteorder != "little", reason="arrays of characters are read as they lie in memory")
def test_the_hash_never_changes() -> None:
    assert of("The quick brown fox; Ünïcode — 中文 😀 jumps.", 5) == [
        16400461663256287946,
        17861898835333820053,
        982468378174029624,
        10379439883709840205,
        17565282660432340247,
    ]
