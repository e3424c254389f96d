"""Normalising: each stated rule, and that the same text twice gives the same text."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instpt_assets.corpus.normalizing import normalize

SIGNS = " \t\n\r\x0b\x0c\x00\x1c\x85\u2028\u2029\ufeff\ud800\udc00\u00a0\u0301e\u212baZ\U0001f600"


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("a\r\nb\rc\x85d\u2028e\u2029f", "a\nb\nc\nd\ne\nf"),
        ("end of a page\x0cNext page\x0b\n", "end of a page\nNext page"),
        ("\ufeffbell\x07 and nul\x00l, a\tb", "bell and null, a\tb"),
        ("e\u0301 \u212b \ud800", "\u00e9 \u00c5 \ufffd"),
        ("\n \t\n  a \t\n\n\nb\u00a0\n \n", "  a\n\n\nb\u00a0"),
        (" \t\r\n\u00a0\x00", ""),
    ],
)
def test_the_rules(text: str, normal: str) -> None:
    assert normalize(text) == normal


@given(text=st.text(st.one_of(st.sampled_from(SIGNS), st.characters()), max_size=40))
def test_normalising_twice_changes_nothing_and_the_result_can_be_written(text: str) -> None:
    normal = normalize(text)
    assert normalize(normal) == normal == unicodedata.normalize("NFC", normal)
    assert normal.encode().decode() == normal and not normal.startswith("\n") and not normal.endswith((" ", "\t", "\n"))
    assert bool(normal) == bool(normal.strip())
