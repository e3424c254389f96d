"""Whether a passage bears out an instruction-response pair: *supported* (its words stand there) and *grounded* (in the right sentence).

Supported alone flatters a writer that answers with trivial words; report grounded beside it.
"""

import re
import unicodedata
from functools import lru_cache

MIN_ANSWER_CHARACTERS = 4
"""A grounded answer is at least so long, normalised."""
MIN_QUESTION_OVERLAP = 0.6
"""Share of the question's content words that the answer's sentence must hold."""

_WORDS = re.compile(r"[^\W_]+(?:_+[^\W_]+)*")
_SENTENCE_END = re.compile(r"(?<=[.!?])[\"')\]]*\s+|\n\s*\n")
_FUNCTION_WORDS = frozenset(
    _WORDS.findall(
        """
        a about after all also an and any are as at be been before being between both but by can could describe did do does doing during each
        else explain following for from give given had has have having he her here his how i if in into is it its itself let me mean means
        might more most must name no not of on one only or other our over passage s said say says shall she should so some such t tell text than
        that the their them then there these they this those through to under up us used using was we were what when where which while who
        whom whose why will with would you your according context answer question
        """
    )
)


def normalise(text: str) -> str:
    """Lower-cased words (letters, digits, inner underscores) joined by single spaces; punctuation, signs and layout are gone.

    Compatibility forms (NFKC) are unified first, so that typographic variants of a word are equal.
    """
    return " ".join(_WORDS.findall(unicodedata.normalize("NFKC", text).casefold()))


def content_words(question: str) -> frozenset[str]:
    """The question's normalised words without function words and words that only ask (what, which, passage, …)."""
    return frozenset(normalise(question).split()) - _FUNCTION_WORDS


def supported(response: str, passage: str) -> bool:
    """Whether the normalised response stands in the normalised passage word for word, at word boundaries; an empty one does not."""
    return _holds(_normal_passage(passage), normalise(response))


def grounded(instruction: str, response: str, passage: str) -> bool:
    """Whether the response answers the instruction from one sentence of the passage, as far as words can tell.

    It is supported; it is not trivial, that is, its normal form has at least `MIN_ANSWER_CHARACTERS` characters and does not stand in
    the instruction; and one sentence of the passage holds it together with at least `MIN_QUESTION_OVERLAP` of the instruction's
    content words. An instruction without content words grounds nothing.
    """
    answer = normalise(response)
    asked = content_words(instruction)
    if len(answer) < MIN_ANSWER_CHARACTERS or not asked or _holds(normalise(instruction), answer):
        return False
    return any(
        _holds(s, answer) and len(asked.intersection(s.split())) >= MIN_QUESTION_OVERLAP * len(asked) for s in _normal_sentences(passage)
    )


def split_sentences(text: str) -> list[str]:
    """Sentences in order, cut behind `.`, `!` or `?` before white space and at blank lines; empty ones are left out."""
    return [sentence for sentence in (part.strip() for part in _SENTENCE_END.split(text)) if sentence]


# The pairs of a passage are asked about one after another.


@lru_cache(maxsize=4)
def _normal_passage(passage: str) -> str:
    return normalise(passage)


@lru_cache(maxsize=4)
def _normal_sentences(passage: str) -> list[str]:
    return [normalise(sentence) for sentence in split_sentences(passage)]


def _holds(words: str, part: str) -> bool:
    return bool(part) and f" {part} " in f" {words} "
