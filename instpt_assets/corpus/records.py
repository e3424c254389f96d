"""Reading a shard as a stream: each record is a `Record`, or a `Rejection` that says what is wrong with it.

A line of JSON Lines may hold a list of objects (the published instruction-augmented corpora have one a chain of contexts): each is a record.
"""

import codecs
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from instpt_assets.corpus.documentation import read_documentation
from instpt_assets.corpus.normalizing import replace_surrogates
from instpt_assets.corpus.parts import is_blank, read_part
from instpt_assets.corpus.raw_records import MAX_REJECTED_CHARACTERS, Raw, Unreadable, read_raw, separator_of, shown_bytes
from instpt_assets.corpus.shards import Shard
from instpt_assets.recipe.corpora import Corpus
from instpt_assets.recipe.documentation import DocumentationUrl

__all__ = ["MAX_REJECTED_CHARACTERS", "PLACE", "Record", "Rejection", "read_records"]
PLACE = "place_in_list"
"""Field of a record that stood in a list: [line, place in the list], both from 0."""
TOO_LONG = "too long: a text of more than 2 GB (of a text file, set document_separator)"
MAX_DEPTH = 100
"""Lists and objects within one another that a record's field may hold."""
MAX_BYTES = 2_000_000_000
"""Length of a text in UTF-8, which a column of a table can hold."""
# NaN and Infinity are no JSON, but common; they become null.
_decode = json.JSONDecoder(parse_constant=lambda _: None).decode


@dataclass(frozen=True)
class Record:
    """A record as read."""

    position: int
    """Line or row number in the file, from 0."""
    id: str | None
    """As the source gives it; None where the corpus has no `id_field`."""
    text: str
    fields: dict[str, Any]
    """All other fields, as JSON values."""
    place: int | None = None
    """Its place in the list that stood on its line, from 0; None where the line is a record."""


@dataclass(frozen=True)
class Rejection:
    """A record that cannot be a document."""

    record: str
    """As read, undecodable bytes as backslash escapes, cut to `MAX_REJECTED_CHARACTERS`."""
    reason: str
    position: int


def read_records(shard: Shard, corpus: Corpus) -> Iterator[Record | Rejection]:
    """The records of a shard in order. Lines (and texts between separators) with nothing but white space are no records.

    Args:
        shard: the file, a part of it, or part of some documentation.
        corpus: its fields.

    Raises:
        SourceError: the file cannot be read, is damaged as a whole (a truncated archive, no Parquet), or does not hold the part any more.
    """
    if shard.format is None:
        yield from _documentation(shard)
        return
    separator = separator_of(shard.format, corpus.document_separator)
    raws: Iterator[tuple[int, Raw]]
    if shard.part is not None:
        raws = read_part(shard.file_url, shard.format, separator, shard.part)
    else:
        raws = enumerate(read_raw(shard.url, shard.format, separator))
    is_text = shard.format.startswith("txt")
    for position, raw in raws:
        if isinstance(raw, Unreadable):
            yield Rejection(raw.record, raw.reason, position)
        elif isinstance(raw, dict):
            yield _record(raw, position, corpus, raw)
        # A file that is one text is a record, an empty one too.
        elif separator is None or not is_blank(raw, position):
            data = raw.removeprefix(codecs.BOM_UTF8) if position == 0 else raw
            if is_text:
                yield _text(data, position)
            else:
                yield from _json_records(data, position, corpus)


def _documentation(shard: Shard) -> Iterator[Record]:
    """The objects whose name's hash falls to this shard, so that a new object moves no other one."""
    url, _, number = shard.url.partition("#")
    num_shards = DocumentationUrl.parse(url).num_shards
    for position, document in enumerate(read_documentation(url)):
        if int.from_bytes(hashlib.sha256(document.name.encode()).digest()[:8]) % num_shards == int(number):
            yield Record(position, document.name, document.text, {"name": document.name, "kind": document.kind})


def _text(data: bytes, position: int) -> Record | Rejection:
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        return Rejection(shown_bytes(data), f"not valid UTF-8: {error.reason} at byte {error.start}", position)
    if not text or text.isspace():
        return Rejection(shown_bytes(data), "empty text", position)
    return Record(position, None, text, {}) if _fits(text) else Rejection(shown_bytes(data), TOO_LONG, position)


def _json_records(line: bytes, position: int, corpus: Corpus) -> Iterator[Record | Rejection]:
    try:
        value = _decode(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        yield Rejection(shown_bytes(line), f"not valid UTF-8: {error.reason} at byte {error.start}", position)
        return
    except (ValueError, RecursionError) as error:
        yield Rejection(shown_bytes(line), f"broken JSON: {error}", position)
        return
    if isinstance(value, dict):
        yield _record(value, position, corpus, line)
    elif isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        for place, item in enumerate(value):
            record = _record({**item, PLACE: [position, place]}, position, corpus, item)
            yield replace(record, place=place) if isinstance(record, Record) else record
    else:
        yield Rejection(shown_bytes(line), "not a JSON object", position)


def _record(value: dict[str, Any], position: int, corpus: Corpus, given: bytes | dict[str, Any]) -> Record | Rejection:
    """A JSON object as a record, if it has a text and the id that the corpus wants, and fields that can be written again."""
    problem = _problem(value, corpus)
    if problem is not None:
        return Rejection(_shown(given), problem, position)
    fields = dict(value)
    text, own_id = fields.pop(corpus.text_field), None if corpus.id_field is None else str(fields.pop(corpus.id_field))
    return Record(position, own_id, text, fields)


def _problem(value: dict[str, Any], corpus: Corpus) -> str | None:
    text = value.get(corpus.text_field)
    if text is None:
        return f"missing text field '{corpus.text_field}'"
    if not isinstance(text, str):
        return f"text field '{corpus.text_field}' is not a string"
    if not text or text.isspace():
        return "empty text"
    if not _fits(text):
        return TOO_LONG
    if corpus.id_field is not None:
        # (Where a field is both, there is none left for the id.)
        own_id = value.get(corpus.id_field) if corpus.id_field != corpus.text_field else None
        if isinstance(own_id, bool) or not isinstance(own_id, str | int) or not str(own_id).strip():
            return f"missing id field '{corpus.id_field}'"
    return None if is_shallow(value) else f"nested too deeply: more than {MAX_DEPTH} levels"


def _fits(text: str) -> bool:
    return len(text) * 4 <= MAX_BYTES or len(text.encode("utf-8", "surrogatepass")) <= MAX_BYTES


def is_shallow(value: dict[str, Any]) -> bool:
    """Whether no more than `MAX_DEPTH` lists and objects stand within one another, so that whoever reads or writes them can follow."""
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [
            item for outer in level for item in (outer.values() if isinstance(outer, dict) else outer) if isinstance(item, dict | list)
        ]
        if not level:
            return True
    return False


def _shown(given: bytes | dict[str, Any]) -> str:
    if isinstance(given, bytes):
        return replace_surrogates(shown_bytes(given))
    return (
        replace_surrogates(json.dumps(given, ensure_ascii=False)[:MAX_REJECTED_CHARACTERS]) if is_shallow(given) else "(nested too deeply)"
    )
