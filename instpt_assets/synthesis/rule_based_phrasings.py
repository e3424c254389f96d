"""How rule-based pairs are worded: families of phrasings in a data file that a person can edit, checked when it is loaded."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from string import Formatter
from typing import Any

import yaml

from instpt_assets.augmentation.phrasings import plain_text
from instpt_assets.store.manifest import canonical_json

PHRASINGS = Path(__file__).with_suffix(".yaml")
"""The phrasings that come with the package."""

FAMILIES: Mapping[str, frozenset[str]] = {
    "relation": frozenset({"first", "second"}),
    "conclusion": frozenset({"statement"}),
    "contrast": frozenset({"statement"}),
    "reason": frozenset({"statement"}),
    "result": frozenset({"statement"}),
    "outcome": frozenset({"cause"}),
    "origin": frozenset({"effect"}),
    "restatement": frozenset({"statement"}),
    "specification": frozenset({"beginning"}),
    "definition": frozenset({"term"}),
    "abbreviation": frozenset({"term"}),
    "words": frozenset({"words"}),
    "title": frozenset(),
    "heading": frozenset({"opening"}),
    "gist": frozenset(),
    "sentence_end": frozenset({"beginning"}),
    "next_sentence": frozenset({"sentence"}),
    "next_sentence_options": frozenset({"sentence"}),
}
"""The placeholders that stand in every instruction of a family, each exactly once."""
OPTIONS = "relation_options"
"""The family of options, each entry three texts: for a conclusion, a contrast and an addition."""


class RulePhrasingError(ValueError):
    """A phrasing that cannot be used; the message names file, family and entry."""


@dataclass(frozen=True)
class RulePhrasings:
    """All families, in the file's order."""

    instructions: Mapping[str, tuple[str, ...]]
    """Templates for `str.format`, by family."""
    relation_options: tuple[tuple[str, str, str], ...]
    """Texts for a conclusion, a contrast and an addition."""
    digest: str
    """SHA-256 of what the file says; comments and layout do not count."""


@cache
def load_rule_phrasings(path: Path = PHRASINGS) -> RulePhrasings:
    """The checked phrasings of a file; by default those that come with the package.

    Raises:
        RulePhrasingError: the file cannot be read, lacks a family or has an unknown one, or an entry is malformed, lacks a placeholder,
            has an unknown one, or stands twice.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RulePhrasingError(f"{path}: not readable as YAML: {error}") from error
    if not isinstance(content, dict) or not all(isinstance(entries, list) for entries in content.values()):
        raise RulePhrasingError(f"{path}: expected families, each with a list of entries")
    if strange := content.keys() ^ {*FAMILIES, OPTIONS}:
        raise RulePhrasingError(f"{path}: missing or unknown families: {', '.join(sorted(map(str, strange)))}")
    checked: dict[str, tuple[Any, ...]] = {}
    for family, entries in content.items():
        found: list[Any] = []
        for number, entry in enumerate(entries, 1):
            try:
                value = _options(entry) if family == OPTIONS else _template(entry, FAMILIES[family])
                if value in found:
                    raise ValueError(f"the same as entry {found.index(value) + 1}")
            except ValueError as error:
                raise RulePhrasingError(f"{path}, {family}, entry {number} {entry!r}: {error}") from None
            found.append(value)
        if not found:
            raise RulePhrasingError(f"{path}, {family}: no entries")
        checked[family] = tuple(found)
    options = checked.pop(OPTIONS)
    return RulePhrasings(checked, options, sha256(canonical_json(content).encode()).hexdigest())


def _template(entry: object, required: frozenset[str]) -> str:
    text = _plain(entry)
    try:
        parsed = list(Formatter().parse(text))
    except ValueError as error:
        raise ValueError(f"malformed template: {error}") from None
    found = [name for _, name, _, _ in parsed if name is not None]
    if any(spec or conversion for _, _, spec, conversion in parsed) or sorted(found) != sorted(required):
        wanted = ", ".join(f"{{{name}}}" for name in sorted(required)) or "no placeholder"
        raise ValueError(f"expected {wanted}, once each and nothing else in braces")
    return text


def _options(entry: object) -> tuple[str, str, str]:
    if not isinstance(entry, list) or len(entry) != 3:
        raise ValueError("expected three options: for a conclusion, a contrast and an addition")
    conclusion, contrast, addition = (_plain(option) for option in entry)
    if len({conclusion.casefold(), contrast.casefold(), addition.casefold()}) < 3:
        raise ValueError("two options are the same")
    return conclusion, contrast, addition


def _plain(entry: object) -> str:
    text = plain_text(entry)
    if not text:
        raise ValueError("empty")
    return text
