"""Options to choose from: which of them an answer is, and what the items of their list are called."""

import re
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

from instpt_assets.augmentation.phrasings import normalized

# "All of the above" and the like speak of the options before them, so they stay behind them.
_CLOSING = re.compile(r"^(?:all|any|both|each|neither|none|two) of (?:the|these|those|them)\b", re.IGNORECASE | re.MULTILINE)

# "A. …", "(b) …", "3: …": whoever wrote the options has named them.
_NAMED = re.compile(r"\(?([A-Za-z]|\d{1,2})[.):]\s+(?=\S)")

_ROMAN = tuple(zip((100, 90, 50, 40, 10, 9, 5, 4, 1), ("c", "xc", "l", "xl", "x", "ix", "v", "iv", "i"), strict=True))


def choices(given: Sequence[str], answer: str, none_of_these: frozenset[str]) -> tuple[list[str], int | None]:
    """The options as they are to be shown, and which of them the answer is (see `find_answer`).

    Options that came with names in order (A, B, … or 1, 2, …) lose them: shuffled and named anew they would have two each. The answer may be
    such a name.
    """
    options = distinct(given)
    right = find_answer(answer, options, none_of_these)
    if len(options) < 2 or not _NAMED.match(options[0]):
        return options, right
    named = [found for found in map(_NAMED.match, options) if found]
    names, bare = [found[1] for found in named], [found.string[found.end() :] for found in named]
    if len(set(bare)) < len(options) or names[0] not in ("A", "a", "1") or not all(_follows(*two) for two in pairwise(names)):
        return options, right
    if right is None or right < 0:
        called = answer.strip(" ().:")
        right = names.index(called) if called in names else find_answer(answer, bare, none_of_these)
    return bare, right


def _follows(name: str, following: str) -> bool:
    """Whether one name comes right behind another."""
    if name.isdigit():
        return following == str(int(name) + 1)
    return following == chr(ord(name) + 1)


def find_answer(answer: str, options: Sequence[str], none_of_these: frozenset[str]) -> int | None:
    """The place of the option that the answer is, -1 if the answer says that none is right, None if it is something else.

    Args:
        answer: as it was written; case, spacing and punctuation at its ends make no difference.
        options: distinct, without blank space around them.
        none_of_these: what says that none is right, `normalized`; an option may say so too, and is then the answer. Of a single option, which
            no text shows, nothing is none.
    """
    answer = answer.strip()
    if answer in options:
        return options.index(answer)
    wanted = normalized(answer)
    forms = [normalized(option) for option in options]
    if wanted in forms:
        return forms.index(wanted)
    if wanted not in none_of_these or len(options) < 2:
        return None
    return next((place for place, form in enumerate(forms) if form in none_of_these), -1)


def distinct(options: Sequence[str]) -> list[str]:
    """The options without blank space around them, each once, without empty ones."""
    return list(dict.fromkeys(filter(None, map(str.strip, options))))


def closing_last(order: list[int], options: Sequence[str]) -> list[int]:
    """The order of the options, those that speak of the others ("all of the above") behind these."""
    listed = "\n".join(options)
    if " of " in listed.lower() and _CLOSING.search(listed):  # the first test is the cheap one
        order = sorted(order, key=lambda place: _CLOSING.match(options[place]) is not None)
    return order


class Label(NamedTuple):
    """What stands before an item of a list."""

    shown: str
    called: str
    """As an answer calls it: "A." is called "A", "(A)" as it is."""


@lru_cache(maxsize=4096)
def labels(name: str, number: int) -> tuple[Label, ...]:
    """The names of so many items; `name` may hold a placeholder of the item's place."""
    return tuple(_label(name, place) for place in range(1, number + 1))


def _label(name: str, place: int) -> Label:
    letters, rest = "", place
    while rest:
        rest, digit = divmod(rest - 1, 26)
        letters = chr(ord("a") + digit) + letters
    roman, rest = "", place
    for value, sign in _ROMAN:
        times, rest = divmod(rest, value)
        roman += sign * times
    shown = name.format(number=place, capital=letters.upper(), letter=letters, Roman=roman.upper(), roman=roman)
    return Label(shown, shown if shown[-1:] == "]" or "(" in shown else shown.rstrip(" .:)-="))
