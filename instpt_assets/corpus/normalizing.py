"""Normalising text by stated rules; the same text twice gives the same text.

1. Lone surrogates become U+FFFD.
2. Line ends (`\\r\\n`, `\\r`, vertical tab, form feed, U+0085, U+2028, U+2029) become `\\n`; a form feed between two pages joins no words.
3. Control characters other than tab and newline, and byte order marks, are removed.
4. Unicode NFC.
5. Spaces and tabs at line ends are removed, and blank lines at the beginning and the end.
"""

import re
import unicodedata
from functools import cache

_LINE_ENDS = re.compile("\r\n|[\r\x0b\x0c\x85\u2028\u2029]")
_SURROGATES = re.compile("[\ud800-\udfff]")
_CONTROLS = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\ufeff]")
_ASCII = bytes(range(128))
_ASCII_CONTROLS = bytes({*range(32), 127} - set(b"\t\n"))


def normalize(text: str) -> str:
    """The text by the rules above; empty if nothing but white space is left."""
    has_controls, may_compose = _what_it_needs(text)
    if has_controls:
        text = _CONTROLS.sub("", _LINE_ENDS.sub("\n", replace_surrogates(text)))
    if may_compose:
        text = unicodedata.normalize("NFC", text)
    if " \n" in text or "\t\n" in text:
        text = "\n".join([line.rstrip(" \t") for line in text.split("\n")])
    text = text.rstrip(" \t").strip("\n")
    return "" if text.isspace() else text


def _what_it_needs(text: str) -> tuple[bool, bool]:
    """Whether rules 1 to 3, and rule 4, may change a text: told at the speed of copying bytes, as most texts need neither."""
    try:
        data = text.encode()
    except UnicodeEncodeError:
        return True, True
    has_controls = len(data.translate(None, _ASCII_CONTROLS)) < len(data)
    if len(data) == len(text):
        return has_controls, False
    others = set(data.translate(None, _ASCII).decode())
    return has_controls or any(map(_is_control, others)), any(map(_may_compose, others))


@cache
def _is_control(character: str) -> bool:
    return _CONTROLS.match(character) is not None or _LINE_ENDS.match(character) is not None


@cache
def _may_compose(character: str) -> bool:
    """Whether a character beyond ASCII is other than NFC, or may be beside another: marks and Hangul letters."""
    return (
        unicodedata.category(character) in ("Mn", "Mc", "Me")
        or "\u1100" <= character <= "\u11ff"
        or not unicodedata.is_normalized("NFC", character)
    )


def replace_surrogates(text: str) -> str:
    """The text with lone surrogates (which no encoding can write) as U+FFFD."""
    return _SURROGATES.sub("\ufffd", text)
