"""Cutting documents into passages: at paragraphs, else sentences, else words, else anywhere; joined in order they are the document.

Separators stay at the end of the piece before them. Neighbouring pieces are put together as long as their tokens fit.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence

CountTokens = Callable[[Sequence[str]], list[int]]
"""Tokens of each of some texts."""

_PARAGRAPH = re.compile(r"\n[^\S\n]*\n\s*")
_SENTENCE = re.compile(r"\n\s*|(?<=[.!?…])[\"'”’)\]]*\s+|(?<=[。！？])\s*")  # noqa: RUF001
_BETWEEN_WORDS = re.compile(r"(?<=\S)\s+(?=\S)")
_FINENESS = 8
"""A sentence that is too long is cut into pieces of about 1/8 of a passage, which are then put together."""


def cut_passages(text: str, count_tokens: CountTokens, max_tokens: int) -> list[str]:
    """Passages of at most `max_tokens` tokens.

    No passage is empty or only white space, unless the text is, or a run of white space fits in no passage beside other text. A single
    character that exceeds the limit is a passage.

    Args:
        text: a document.
        count_tokens: tokens of each text.
        max_tokens: at least 1.

    Raises:
        ValueError: `max_tokens` is below 1.
    """
    if max_tokens < 1:
        raise ValueError(f"max_tokens is {max_tokens}, not positive")
    pieces = list(zip([text], count_tokens([text]), strict=True))
    for boundary in (_PARAGRAPH, _SENTENCE):
        pieces = _split(pieces, lambda piece, _, at=boundary: _at(at, piece), count_tokens, max_tokens)  # type: ignore[misc]
    while any(_too_long(piece, max_tokens) for piece in pieces):
        pieces = _split(pieces, lambda piece, tokens: _chunks(piece, 2 + _FINENESS * tokens // max_tokens), count_tokens, max_tokens)
    return _fitting(_merge(pieces, max_tokens), count_tokens, max_tokens)


Piece = tuple[str, int]
"""A text and its tokens."""


def _too_long(piece: Piece, max_tokens: int) -> bool:
    return piece[1] > max_tokens and len(piece[0]) > 1


def _split(pieces: Sequence[Piece], cut: Callable[[str, int], Iterable[str]], count_tokens: CountTokens, max_tokens: int) -> list[Piece]:
    """The pieces with those that are too long cut into smaller ones, all of which are counted in one call."""
    cuts = [list(cut(*piece)) if _too_long(piece, max_tokens) else [] for piece in pieces]
    cuts = [parts if len(parts) > 1 else [] for parts in cuts]
    smaller = [part for parts in cuts for part in parts]
    counted = iter(zip(smaller, count_tokens(smaller) if smaller else [], strict=True))
    return [new for piece, parts in zip(pieces, cuts, strict=True) for new in ([next(counted) for _ in parts] or [piece])]


def _at(boundary: re.Pattern[str], text: str) -> Iterator[str]:
    """The text cut after each boundary; white space at the beginning stays with the first piece."""
    start = 0
    for match in boundary.finditer(text, len(text) - len(text.lstrip())):
        if start < match.end() < len(text):
            yield text[start : match.end()]
            start = match.end()
    yield text[start:]


def _chunks(text: str, parts: int) -> Iterator[str]:
    """About `parts` pieces of equal length, cut between words; a single word is cut anywhere."""
    size = -(-len(text) // parts)
    ends = [match.end() for match in _BETWEEN_WORDS.finditer(text)]
    if not ends:
        yield from (text[start : start + size] for start in range(0, len(text), size))
        return
    start = previous = 0
    for end in [*ends, len(text)]:
        if end - start > size and previous > start:
            yield text[start:previous]
            start = previous
        previous = end
    yield text[start:]


def _merge(pieces: Sequence[Piece], max_tokens: int) -> list[list[str]]:
    """Neighbouring pieces in groups whose tokens add up to at most the limit."""
    groups: list[list[str]] = []
    total = 0
    for piece, tokens in pieces:
        if groups and total + tokens <= max_tokens:
            groups[-1].append(piece)
            total += tokens
        else:
            groups.append([piece])
            total = tokens
    return groups


def _fitting(groups: list[list[str]], count_tokens: CountTokens, max_tokens: int) -> list[str]:
    """Each group as one text; halved as long as it has more tokens than its pieces together (tokenizers promise nothing)."""
    several = ["".join(group) for group in groups if len(group) > 1]
    counts = iter(count_tokens(several) if several else [])
    fits = [len(group) == 1 or next(counts) <= max_tokens for group in groups]
    if all(fits):
        return ["".join(group) for group in groups]
    halves = [
        half
        for group, fit in zip(groups, fits, strict=True)
        for half in ([group] if fit else [group[: len(group) // 2], group[len(group) // 2 :]])
    ]
    return _fitting(halves, count_tokens, max_tokens)
