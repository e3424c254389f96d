"""Phrasings: the wording around passages and pairs, in data files, one family a file.

A file holds `about` (one sentence), `entries`, and `compose`: blocks whose `pattern` names `<part>`s, each replaced by every one of
its `parts`. An entry is a template with `{placeholders}`. Everything is checked when it is loaded, so that layouts can format without
looking: every placeholder that a family needs stands in each entry once, no other does, no two touch, no angle bracket could become a
marker of the prompt format, and no entry stands twice. Entries that differ only in case, in blanks or in the punctuation at the end are
the same: a reader would not call them two phrasings. Line breaks are layout and count, and so does everything in an item's name.

After editing: `python -m instpt_assets.augmentation.phrasings [folder]` prints how many each family has, or the first fault. Texts laid out
with other entries are others: their identity follows `Phrasings.digest`.
"""

import argparse
import itertools
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from functools import cache, cached_property
from hashlib import sha256
from pathlib import Path
from string import Formatter
from typing import Any

import yaml

from instpt_assets.store.manifest import canonical_json

NUMERALS = frozenset({"number", "capital", "letter", "Roman", "roman"})
"""Placeholders of an item's place: 1, A, a, I, i."""

PHRASINGS = Path(__file__).parent / "phrasings"
"""The folder with the phrasings that come with the package."""

_SLOT = re.compile(r"<([a-z_]+)>")
_BLANKS = re.compile(r"[ \t]+")


class PhrasingError(ValueError):
    """A phrasing that cannot be used; the message names file and entry."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """What the entries of one family must look like."""

    required: frozenset[str] = frozenset()
    """Placeholders that stand in every entry exactly once."""
    optional: frozenset[str] = frozenset()
    """Placeholders that may stand in an entry, once."""
    numeral: bool | None = False
    """Whether a placeholder of NUMERALS stands in an entry: True exactly one, None at most one, False none."""
    may_be_empty: bool = False
    """Whether an entry may say nothing at all."""
    pairs: bool = False
    """Whether an entry is two names rather than a template."""


def _needs(*required: str) -> Family:
    return Family(required=frozenset(required))


FAMILIES: Mapping[str, Family] = {
    "question_answer": _needs("question", "answer"),
    "question_answer_options": _needs("question", "options", "answer"),
    "question_answer_reasoning": _needs("question", "reasoning", "answer"),
    "question_answer_options_reasoning": _needs("question", "options", "reasoning", "answer"),
    "conclusions": _needs("answer"),
    "numbered_questions": _needs("questions", "answers"),
    "next_turn": Family(required=frozenset({"dialog", "turn"}), optional=frozenset({"speaker"})),
    "inline_few_shot": _needs("examples", "target"),
    "text_lead_ins": _needs("text"),
    "comprehension_lead_ins": Family(may_be_empty=True),
    "pairs_first_lead_ins": _needs("pairs", "text"),
    "option_lead_ins": _needs("items"),
    "option_item_names": Family(numeral=None),
    "question_item_names": Family(numeral=True),
    "dialog_names": Family(pairs=True),
    "dialog_lead_ins": Family(may_be_empty=True),
    "none_of_these": Family(),
}


@dataclass(frozen=True, kw_only=True)
class Phrasings:
    """All families, each in its file's order; templates are for `str.format`."""

    question_answer: tuple[str, ...]
    question_answer_options: tuple[str, ...]
    question_answer_reasoning: tuple[str, ...]
    question_answer_options_reasoning: tuple[str, ...]
    conclusions: tuple[str, ...]
    numbered_questions: tuple[str, ...]
    next_turn: tuple[str, ...]
    inline_few_shot: tuple[str, ...]
    text_lead_ins: tuple[str, ...]
    comprehension_lead_ins: tuple[str, ...]
    pairs_first_lead_ins: tuple[str, ...]
    option_lead_ins: tuple[str, ...]
    option_item_names: tuple[str, ...]
    question_item_names: tuple[str, ...]
    dialog_names: tuple[tuple[str, str], ...]
    dialog_lead_ins: tuple[str, ...]
    none_of_these: frozenset[str]
    """In the form of `normalized`."""

    def counts(self) -> dict[str, int]:
        """How many phrasings each family has."""
        return {field.name: len(getattr(self, field.name)) for field in fields(self)}

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all entries in their order, by which they are drawn; comments, `about` and how a file is laid out do not count."""
        return sha256(canonical_json({**asdict(self), "none_of_these": sorted(self.none_of_these)}).encode()).hexdigest()


@cache
def load_phrasings(folder: Path = PHRASINGS) -> Phrasings:
    """The phrasings in the files `<family>.yaml` of a folder; by default those that come with the package.

    Raises:
        PhrasingError: a family has no file or a file no family, or an entry is malformed, lacks a placeholder or has an
            unknown one, or stands twice.
    """
    strange = {path.stem for path in folder.glob("*.yaml")} - set(FAMILIES)
    if strange:
        raise PhrasingError(f"{folder}: no family is called {', '.join(sorted(strange))}; there are: {', '.join(FAMILIES)}")
    loaded: dict[str, Any] = {name: load_family(folder / f"{name}.yaml") for name in FAMILIES}
    loaded["none_of_these"] = frozenset(loaded["none_of_these"])
    return Phrasings(**loaded)


def load_family(path: Path) -> tuple[Any, ...]:
    """The checked entries of one file; the family is the file's stem.

    Raises:
        PhrasingError: see `load_phrasings`.
    """
    family = FAMILIES[path.stem]
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise PhrasingError(f"{path}: not readable as YAML: {error}") from error
    if not isinstance(content, dict) or not set(content) <= {"about", "entries", "compose"}:
        raise PhrasingError(f"{path}: expected a mapping with about, entries and compose")
    first_place: dict[Any, str] = {}
    result = []
    for place, entry in _entries(path, content):
        try:
            value: Any = _names(entry) if family.pairs else _template(entry, family)
        except ValueError as error:
            raise PhrasingError(f"{path}, {place} {entry!r}: {error}") from None
        if path.stem == "none_of_these":
            value = normalized(value)
        form = _form(value, family)
        if form in first_place:
            raise PhrasingError(f"{path}, {place} {entry!r}: the same as {first_place[form]} (case, blanks and final punctuation aside)")
        first_place[form] = f"{place} {entry!r}"
        result.append(value)
    if not result:
        raise PhrasingError(f"{path}: no entries")
    return tuple(result)


def normalized(text: str) -> str:
    """Case, spacing and punctuation at the ends taken away: the form in which answers and options are compared."""
    return " ".join(text.casefold().split()).strip(" .,;:!?\"'")


def _form(value: Any, family: Family) -> Any:
    """What two entries that are the same have in common."""
    if family.pairs:
        return tuple(map(normalized, value))
    return value if family.numeral is not False else _BLANKS.sub(" ", value.casefold()).strip(" .,;:!?")


def _entries(path: Path, content: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Every entry with the words that name its place."""
    for number, entry in enumerate(content.get("entries") or [], 1):
        yield f"entry {number}", entry
    for number, block in enumerate(content.get("compose") or [], 1):
        place = f"compose block {number}"
        if not isinstance(block, dict) or set(block) != {"pattern", "parts"} or not isinstance(block["parts"], dict):
            raise PhrasingError(f"{path}, {place}: expected a pattern and its parts")
        pattern, parts = block["pattern"], block["parts"]
        slots = _SLOT.findall(pattern)
        if len(set(slots)) != len(slots) or set(slots) != set(parts):
            raise PhrasingError(f"{path}, {place} {pattern!r}: its slots are {slots}, its parts {list(parts)}")
        for choice in itertools.product(*(parts[slot] for slot in slots)):
            entry = pattern
            for slot, part in zip(slots, choice, strict=True):
                entry = entry.replace(f"<{slot}>", str(part))
            yield place, entry


def _names(entry: Any) -> tuple[str, str]:
    if not (isinstance(entry, list) and len(entry) == 2 and all(isinstance(name, str) for name in entry)):
        raise ValueError("expected two names")
    first, second = (plain_text(name) for name in entry)
    if not first or not second or first == second:
        raise ValueError("expected two different names")
    if "{" in first + second:
        raise ValueError("a name has no placeholders")
    return first, second


def plain_text(entry: object) -> str:
    """An entry of a file of phrasings, if it is a text that may stand around passages and pairs.

    Raises:
        ValueError: it is no text, has blank space at an end, or an angle bracket.
    """
    if not isinstance(entry, str):
        raise ValueError(f"expected text, not {type(entry).__name__} (put it in quotes)")
    if entry != entry.strip():
        raise ValueError("blank space at an end")
    if "<" in entry or ">" in entry.replace("=>", ""):
        raise ValueError("an angle bracket could become part of a marker of the prompt format")
    return entry


def _template(entry: Any, family: Family) -> str:
    text = plain_text(entry)
    if not text and not family.may_be_empty:
        raise ValueError("empty")
    try:
        parsed = list(Formatter().parse(text))
    except ValueError as error:
        raise ValueError(f"malformed template: {error}") from None
    found = []
    for place, (before, name, spec, conversion) in enumerate(parsed):
        if name is None:
            continue
        if place and not before:
            raise ValueError(f"nothing between {{{name}}} and the placeholder before it")
        if not name.isidentifier() or spec or conversion:
            raise ValueError(f"malformed placeholder {{{name}}}")
        if name not in NUMERALS and place + 1 < len(parsed) and parsed[place + 1][0][:1] in set(".,;:!?"):
            raise ValueError(f"punctuation right behind {{{name}}}, which brings its own")
        found.append(name)
    counted = [name for name in found if name in NUMERALS] if family.numeral is not False else []
    plain = [name for name in found if name not in counted]
    if missing := family.required - set(plain):
        raise ValueError(f"missing placeholder {_braced(missing)}")
    if unknown := set(plain) - family.required - family.optional:
        raise ValueError(f"unknown placeholder {_braced(unknown)}")
    if not (family.required or family.optional or family.numeral is not False) and set(text) & set("{}"):
        raise ValueError("a brace, which stands as it is: nothing is filled in here")
    if len(set(plain)) != len(plain):
        raise ValueError("a placeholder stands twice")
    if len(counted) > 1 or (family.numeral and not counted):
        raise ValueError(f"expected {'one' if family.numeral else 'at most one'} of {_braced(NUMERALS)}")
    return text


def _braced(names: frozenset[str] | set[str]) -> str:
    return ", ".join(f"{{{name}}}" for name in sorted(names))


def main() -> None:
    """Check the phrasings of a folder and print how many each family has."""
    parser = argparse.ArgumentParser(description="Check phrasings: how many each family has, or the first fault.")
    parser.add_argument(
        "folder", nargs="?", type=Path, default=PHRASINGS, help="with a file <family>.yaml each (default: the bundled ones)"
    )
    try:
        counts = load_phrasings(parser.parse_args().folder).counts()
    except PhrasingError as error:
        sys.exit(f"error: {error}")
    sys.stdout.writelines(f"{name:36}{number:5}\n" for name, number in counts.items())


if __name__ == "__main__":
    main()
