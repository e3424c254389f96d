"""Normalising text by stated rules; the same text twice gives the same text.

1. Lone surrogates become U+FFFD.
2. Line ends (`\\r\\n`, `\\r`, U+0085, U+2028, U+2029) become `\\n`.
3. Control characters other than tab and newline, and byte order marks, are removed.
4. Unicode NFC.
5. Spaces and tabs at line ends are removed, and blank lines at the beginning and the end.
"""

import re
import unicodedata

_LINE_ENDS = re.compile("\r\n|[\r\x85\u2028\u2029]")
_SURROGATES = re.compile("[\ud800-\udfff]")
_CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufeff]")


def normalize(text: str) -> str:
    """The text by the rules above; empty if nothing but white space is left."""
    text = _CONTROLS.sub("", _LINE_ENDS.sub("\n", replace_surrogates(text)))
    lines = [line.rstrip(" \t") for line in unicodedata.normalize("NFC", text).split("\n")]
    text = "\n".join(lines).strip("\n")
    return text if text.strip() else ""


def replace_surrogates(text: str) -> str:
    """The text with lone surrogates (which no encoding can write) as U+FFFD."""
    return _SURROGATES.sub("\ufffd", text)
