"""Augmented texts to look at: what was added told from the passages, with licence and attribution."""

import json
from collections.abc import Sequence
from typing import NamedTuple

from instpt_assets.augmentation.layouts import PAIRS_FIRST, Pair
from instpt_assets.augmentation.quality_rows import Text

_ATTRIBUTION = ("title", "author", "authors", "source", "url", "doi")
"""What of a document's metadata says whose it is."""
_ATTRIBUTION_CHARACTERS = 160
_WORD_CHARACTERS = 20
CUT = " […] "


class SampledPassage(NamedTuple):
    """A passage of a sampled text."""

    passage_id: str
    text: str
    pairs: Sequence[Pair]
    """Those that stand in the text."""


class SampledText(NamedTuple):
    """A row of the sample."""

    text_id: str
    layout: str
    num_pairs: int
    text: str
    passages: Sequence[SampledPassage]
    licenses: Sequence[str | None]
    metadata: Sequence[str | None]

    @classmethod
    def of(cls, text: Text) -> "SampledText":
        """The text, with all that is shown of it."""
        whole, passages = text.text, list[SampledPassage]()
        for passage in text.passages:
            standing = [pair for pair in passage.pairs if pair.instruction.strip() in whole]  # those that were dropped do not
            passages.append(SampledPassage(passage.passage_id, passage.text, standing))
        return cls(text.text_id, text.layout, text.num_pairs, whole, passages, text.licenses, text.metadata)


class Shown(NamedTuple):
    """A passage and what was added to it."""

    raw: str
    before: str
    """Added in front of it."""
    passage: str
    """As it stands in the augmented text, cut shorter: beside it it stands in full."""
    behind: str
    """Added behind it."""


class Example(NamedTuple):
    """An augmented text beside its passages, as a page shows it."""

    text_id: str
    layout: str
    num_pairs: int
    rows: Sequence[Shown]
    attributions: Sequence[str]
    """Whose the passages are, and under which licence; each once."""


def example(row: SampledText, *, raw_characters: int, passage_characters: int, added_characters: int) -> Example:
    """The text, passage by passage; what is longer than told is cut in its middle.

    What stands between two passages is shown behind the first, but for the second's lead-in; where pairs stand in front of their passage, before
    the second.

    Raises:
        ValueError: the text does not hold its passages.
    """
    passages, added, position = [passage.text.rstrip() for passage in row.passages], list[str](), 0
    for passage in passages:
        place = row.text.find(passage, position)
        if place < 0:
            raise ValueError(f"{row.text_id} does not hold its passages: instruction_pairs and augmented_corpus do not belong together")
        added.append(row.text[position:place])
        position = place + len(passage)
    first, *between = added
    last = row.text[position:]
    if row.layout.endswith(PAIRS_FIRST):
        before, behind = [first, *between], [*("" for _ in between), last]
    else:
        # One lead-in holds for all passages of a text: what it says before the first it says before the others.
        leads = [first if first.strip() and text.endswith(first) else "" for text in between]
        before, behind = [first, *leads], [*(text.removesuffix(lead) for text, lead in zip(between, leads, strict=True)), last]
    shown = zip(passages, before, behind, strict=True)
    return Example(
        row.text_id,
        row.layout,
        row.num_pairs,
        [
            Shown(
                cut(passage, raw_characters),
                cut(old, added_characters),
                cut(passage, passage_characters),
                cut(new, added_characters).rstrip(),
            )
            for passage, old, new in shown
        ],
        list(dict.fromkeys(_attribution(*both) for both in zip(row.licenses, row.metadata, strict=True))),
    )


def cut(text: str, num_characters: int) -> str:
    """The text, or its beginning and end if it is longer."""
    if len(text) <= num_characters:
        return text
    end = num_characters // 4
    head, tail = text[: num_characters - end], text[len(text) - end :]
    # Whole words, unless they are very long.
    head = head[: place + 1] if (place := head.rfind(" ", max(0, len(head) - _WORD_CHARACTERS))) >= 0 else head
    tail = tail[place:] if (place := tail.find(" ", 0, _WORD_CHARACTERS)) >= 0 else tail
    return f"{head.rstrip()}{CUT}{tail.lstrip()}"


def _attribution(license: str | None, metadata: str | None) -> str:
    known = json.loads(metadata or "{}")
    named = [known[name] for name in _ATTRIBUTION if isinstance(known.get(name), str) and known[name].strip()]
    shown = [value if len(value) <= _ATTRIBUTION_CHARACTERS else f"{value[:_ATTRIBUTION_CHARACTERS]}…" for value in named]
    return " \u00b7 ".join([*shown, f"licence: {license}" if license else "no licence is known"])
