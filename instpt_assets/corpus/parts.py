"""A file cut into parts of so many records each: found in one pass that is remembered, read again part by part.

A part's digest is one of its own records and their positions, so appending to a file changes only its last part. What is read of a part is
held against its digest: a file may grow meanwhile, but not give other records than the part's identity stands for.
"""

import hashlib
import json
import os
import uuid
from collections.abc import Generator, Iterator
from contextlib import suppress
from dataclasses import astuple, dataclass
from functools import lru_cache
from pathlib import Path

from instpt_assets.corpus.files import File, SourceError, file_digest
from instpt_assets.corpus.raw_records import DamagedFileError, Raw, raw_bytes, read_raw, separator_of
from instpt_assets.recipe.corpora import Corpus, Format
from instpt_assets.store.store import cache_folder

_VERSION = 1
"""Of the index; raised when another one comes of the same file."""
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Part:
    """Consecutive records of a file."""

    file: str
    """Digest of the whole file when it was cut."""
    first: int
    """Position of its first record in the file, from 0."""
    end: int
    """Position behind its last record."""
    offset: int
    """Where the first record begins, in decompressed bytes; 0 in a table."""
    is_last: bool
    """Whether no part follows."""
    digest: str
    """64 hexadecimal digits over its records and their positions; of a damaged file, over the file."""
    damage: str | None = None
    """Why the file cannot be read."""


def is_blank(raw: Raw, position: int) -> bool:
    """Whether a line or text holds nothing but white space (and, at a file's beginning, a byte order mark), and is no record."""
    if not isinstance(raw, bytes):
        return False
    text = raw.removeprefix(_BOM) if position == 0 else raw
    return not text or text.isspace()


def list_parts(file: File, corpus: Corpus) -> tuple[Part, ...]:
    """The parts of a file, of `documents_per_shard` records each (the last one of what is left); of a file without records, none.

    A damaged file has one part, which cannot be read: its checksums stand at its end, so what comes before the damage is not to be
    trusted either. So has a local one that cannot be opened (a link to nothing, without permission).

    Raises:
        SourceError: a remote file is gone or cannot be reached: the next listing may find its parts.
    """
    assert corpus.documents_per_shard is not None
    separator = separator_of(file.format, corpus.document_separator)
    try:
        digest = file_digest(file.url)
    except SourceError as error:
        if "://" in file.url:
            raise
        return (_unreadable(hashlib.sha256(str(error).encode("utf-8", "surrogateescape")).hexdigest(), error),)
    key = repr((_VERSION, file.url, digest, file.format, separator, corpus.documents_per_shard))
    note = cache_folder() / "parts" / f"{hashlib.sha256(key.encode()).hexdigest()}.json"
    with suppress(OSError, ValueError, TypeError):  # what cannot be read, or is no note, is none
        return _read_note(note)
    try:
        parts = tuple(_find_parts(file, separator, corpus.documents_per_shard, digest))
    except DamagedFileError as error:
        parts = (_unreadable(digest, error),)
        if "://" in file.url:  # perhaps it was not the file but the connection
            return parts
    if file_digest(file.url, anew=True) == digest:
        with suppress(OSError):  # without a place for notes, the next listing reads the file again
            note.parent.mkdir(parents=True, exist_ok=True)
            temporary = note.with_name(f".{note.name}.{uuid.uuid4().hex}")
            temporary.write_text(json.dumps([astuple(part) for part in parts]), encoding="utf-8")
            os.replace(temporary, note)
    return parts


def _unreadable(digest: str, error: SourceError) -> Part:
    return Part(digest, 0, 0, 0, True, digest, str(error))


@lru_cache(maxsize=10_000)
def _read_note(note: Path) -> tuple[Part, ...]:
    return tuple(Part(*part) for part in json.loads(note.read_text(encoding="utf-8")))


def _find_parts(file: File, separator: bytes | None, size: int, digest: str) -> Iterator[Part]:
    first = end = offset = start = count = 0
    content = _Content()
    for position, raw in enumerate(read_raw(file.url, file.format, separator)):
        if not is_blank(raw, position):
            if count == size:
                yield Part(digest, first, end, start, False, content.digest)
                count, content = 0, _Content()
            if not count:
                first, start = position, offset
            content.add(position, raw)
            count, end = count + 1, position + 1
        if isinstance(raw, bytes):
            offset += len(raw) + len(separator or b"")
    if count:
        yield Part(digest, first, end, start, True, content.digest)


class _Content:
    """The digest of records."""

    def __init__(self) -> None:
        self._sha256 = hashlib.sha256()

    def add(self, position: int, raw: Raw) -> None:
        data = raw_bytes(raw)
        self._sha256.update(b"%d %d\n" % (position, len(data)))
        self._sha256.update(data)

    @property
    def digest(self) -> str:
        return self._sha256.hexdigest()


_open_files: dict[tuple[int, str, str, bytes | None], tuple[int, Iterator[Raw]]] = {}
"""The compressed file or table that was read last, at most one: the position where it stands and what follows. Its next part goes on there."""


def read_part(url: str, file_format: Format, separator: bytes | None, part: Part) -> Iterator[tuple[int, Raw]]:
    """The records of a part with their positions in the file.

    Parts that are read in order cost one pass over their file; in another order a compressed file is read from its beginning each time.

    Raises:
        SourceError: the file cannot be read, or does not hold the part any more.
    """
    if part.damage is not None:
        raise DamagedFileError(part.damage)
    key = (os.getpid(), url, part.file, separator)
    position, raws = _open_files.pop(key, (part.end, iter(())))
    if position > part.first:
        _close(raws)
        position, raws = part.first, read_raw(url, file_format, separator, first=part.first, offset=part.offset)
    content = _Content()
    try:
        while position < part.end and (raw := next(raws, None)) is not None:
            if position >= part.first and not is_blank(raw, position):
                content.add(position, raw)
                yield position, raw
            position += 1
        if content.digest != part.digest:
            raise SourceError(f"'{url}' changed after it was listed: materialize again when it is complete")
    except BaseException:
        _close(raws)
        raise
    if part.is_last or file_format in ("jsonl", "txt"):
        _close(raws)
    else:
        for _, other in _open_files.values():
            _close(other)
        _open_files.clear()
        _open_files[key] = (position, raws)


def _close(raws: Iterator[Raw]) -> None:
    if isinstance(raws, Generator):
        raws.close()
