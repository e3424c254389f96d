"""What tasks are found in, and what they find."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeVar

from instpt_assets.augmentation.draws import Draws
from instpt_assets.synthesis.rule_based_sentences import Prose

T = TypeVar("T")


class Passage(NamedTuple):
    """What the tasks are found in."""

    prose: Prose
    title: str | None
    """Of the document, where the passage is its first; None if there is none."""


class Found(NamedTuple):
    """A pair in the making: its instruction is a phrasing of `family`, filled."""

    family: str
    fields: Mapping[str, str]
    response: str
    sentences: tuple[int, ...] = ()
    """Those that it was made of, by number: no two pairs of a passage share one."""
    relation: int | None = None
    """Which of the options of a phrasing of `relation_options` is right."""
    others: tuple[str, ...] = ()
    """Wrong options."""


def shuffled(items: Sequence[T], draws: Draws, name: str) -> list[T]:
    """The items in a drawn order."""
    return [items[place] for place in draws.order(name, len(items))] if len(items) > 1 else list(items)
