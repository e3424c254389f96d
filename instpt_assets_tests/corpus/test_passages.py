"""Passages join to the document, keep the limit, and break at the best boundary that fits; documents are chosen by hash."""

import random
import re
from collections.abc import Sequence
from itertools import pairwise

import pytest

from instpt_assets.corpus.passages import cut_passages
from instpt_assets.corpus.select import selected


def words(texts: Sequence[str]) -> list[int]:
    return [len(re.findall(r"\w+|[^\w\s]", text)) for text in texts]


def characters(texts: Sequence[str]) -> list[int]:
    return [len(text) for text in texts]


def uneven(texts: Sequence[str]) -> list[int]:
    """Counts of a joined text can exceed the sum of its parts' counts, as a tokenizer's may."""
    return [len(text) // 3 + len(re.findall(r"\s\S", text)) for text in texts]


@pytest.mark.parametrize("count", [words, characters, uneven])
def test_random_documents(count) -> None:  # type: ignore[no-untyped-def]
    draw = random.Random(0)
    parts = ["word", "a", "Ünïcödé", "漢字", "end.", "Why?", "\n\n", "\n", " ", " ", " ", "\n \n\n", "x" * 40, "…", "</END>", "\t"]
    for _ in range(400):
        text = "".join(draw.choices(parts, k=draw.randint(1, 120)))
        limit = draw.choice([1, 2, 7, 20, 1000])
        passages = cut_passages(text, count, limit)
        assert "".join(passages) == text
        assert all(tokens <= limit or len(passage) == 1 for passage, tokens in zip(passages, count(passages), strict=True))
        assert cut_passages(text, count, limit) == passages
        if count is words and limit > 1 and text.strip():
            assert all(passage.strip() for passage in passages)


def test_a_document_that_fits_is_one_passage() -> None:
    assert cut_passages("One. Two.\n\nThree.", words, 6) == ["One. Two.\n\nThree."]
    assert cut_passages("", words, 6) == [""]
    assert cut_passages(" \n", words, 6) == [" \n"]


def test_sentences_stay_whole_where_they_fit() -> None:
    assert cut_passages("One two three. Four five six.\nSeven eight!", words, 7) == ["One two three. ", "Four five six.\nSeven eight!"]


def test_paragraphs_come_before_sentences_before_words() -> None:
    text = "One two. Three four.\n\nFive six. Seven eight nine ten eleven twelve.\n\nEnd."
    assert cut_passages(text, words, 6) == ["One two. Three four.\n\n", "Five six. Seven eight nine ", "ten eleven twelve.\n\nEnd."]


def test_small_paragraphs_are_put_together() -> None:
    assert cut_passages("a b\n\nc d\n\ne f\n\ng h", words, 4) == ["a b\n\nc d\n\n", "e f\n\ng h"]


def test_a_word_that_is_too_long_is_cut_anywhere() -> None:
    passages = cut_passages("x" * 1000, characters, 64)
    assert "".join(passages) == "x" * 1000 and max(map(len, passages)) <= 64 and len(passages) < 20


def test_a_long_sentence_fills_its_passages() -> None:
    passages = cut_passages("word " * 10_000, words, 100)
    assert max(words(passages)) <= 100 and len(passages) < 120


def test_a_limit_below_one_is_an_error() -> None:
    with pytest.raises(ValueError, match="max_tokens"):
        cut_passages("a", words, 0)


def test_selection_is_stable_monotone_and_of_the_right_size() -> None:
    ids = [f"c/{i}" for i in range(5000)]
    fractions = (0.0, 0.1, 0.5, 0.9, 1.0)
    chosen = [{i for i in ids if selected(i, fraction)} for fraction in fractions]
    assert all(smaller <= larger for smaller, larger in pairwise(chosen))
    assert not chosen[0] and len(chosen[-1]) == 5000
    assert all(abs(len(some) / 5000 - fraction) < 0.03 for some, fraction in zip(chosen, fractions, strict=True))
    assert [i for i in ids[:12] if selected(i, 0.25)] == ["c/4", "c/5", "c/6", "c/7"]
