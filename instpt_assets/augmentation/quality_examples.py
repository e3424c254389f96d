"""Augmented texts to look at: what was added told from the passages, with licence and attribution."""

import json
from collections.abc import Sequence
from typing import NamedTuple

from instpt_assets.augmentation.layouts import Pair
from instpt_assets.augmentation.quality_rows import Text

_ATTRIBUTION = ("title", "author", "authors", "source", "url", "doi")
"""What of a document's metadata says whose it is."""
_ATTRIBUTION_CHARACTERS = 160
CUT = " […] "


class SampledPassage(NamedTuple):
    """A passage of a sampled text."""

    passage_id: str
    text: str
    pairs: Sequence[Pair]


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
        passages = [SampledPassage(passage.passage_id, passage.text, passage.pairs) for passage in text.passages]
        return cls(text.text_id, text.layout, text.num_pairs, text.text, passages, text.licenses, text.metadata)


class Part(NamedTuple):
    """A piece of an augmented text."""

    is_passage: bool
    text: str


class Example(NamedTuple):
    """An augmented text beside its passages, as a page shows it."""

    text_id: str
    layout: str
    num_pairs: int
    passages: Sequence[str]
    parts: Sequence[Part]
    attributions: Sequence[str]
    """Whose the passages are, and under which licence; each once."""


def example(row: SampledText, *, passage_characters: int, added_characters: int) -> Example:
    """The text in parts; a longer passage, or a longer piece between passages, is cut in its middle.

    Raises:
        ValueError: the text does not hold its passages.
    """
    parts, position = list[Part](), 0
    for passage in (passage.text.rstrip() for passage in row.passages):
        place = row.text.find(passage, position)
        if place < 0:
            raise ValueError(f"{row.text_id} does not hold its passages: instruction_pairs and augmented_corpus do not belong together")
        parts += [Part(False, row.text[position:place]), Part(True, passage)]
        position = place + len(passage)
    parts.append(Part(False, row.text[position:]))
    return Example(
        row.text_id,
        row.layout,
        row.num_pairs,
        [cut(passage.text.rstrip(), passage_characters) for passage in row.passages],
        [Part(p.is_passage, cut(p.text, passage_characters if p.is_passage else added_characters)) for p in parts if p.text],
        list(dict.fromkeys(_attribution(*both) for both in zip(row.licenses, row.metadata, strict=True))),
    )


def cut(text: str, num_characters: int) -> str:
    """The text, or its beginning and end if it is longer."""
    if len(text) <= num_characters:
        return text
    end = num_characters // 4
    return f"{text[: num_characters - end].rstrip()}{CUT}{text[-end:].lstrip()}"


def _attribution(license: str | None, metadata: str | None) -> str:
    known = json.loads(metadata or "{}")
    named = [known[name] for name in _ATTRIBUTION if isinstance(known.get(name), str) and known[name].strip()]
    shown = [value if len(value) <= _ATTRIBUTION_CHARACTERS else f"{value[:_ATTRIBUTION_CHARACTERS]}…" for value in named]
    return ". ".join([*shown, f"Licence: {license}" if license else "No licence is known"])
