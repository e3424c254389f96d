"""From a file's bytes to its raw records, as a stream in bounded memory: lines, texts between separators, rows of a Parquet table."""

import gzip
import json
import math
import zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import IO, Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from instpt_assets.corpus.files import SourceError, open_file
from instpt_assets.recipe.corpora import Format

MAX_REJECTED_CHARACTERS = 10_000
"""A rejected record is kept up to this length."""
_CHUNK = 1 << 20
_FEWEST_READ, _MOST_READ = 1 << 8, 1 << 16
"""Bytes of a zstd archive at a time: few where text is thousands of times as long, and never so many that copying what is left behind each
of many small frames takes time."""
_BATCH_ROWS = 256
_LARGE_WINDOW = 1 << 31
_DAMAGE = (EOFError, gzip.BadGzipFile, zlib.error, zstandard.ZstdError, pa.ArrowException)
_PLAIN_TYPES = (pa.types.is_string, pa.types.is_large_string, pa.types.is_integer, pa.types.is_boolean, pa.types.is_null)


class DamagedFileError(SourceError):
    """A file that is not what its format says: truncated, with a wrong checksum, no Parquet."""


class Unreadable(NamedTuple):
    """A row of a table whose values cannot be told."""

    record: str
    """As far as it can be shown, cut to `MAX_REJECTED_CHARACTERS`."""
    reason: str


Raw = bytes | dict[str, Any] | Unreadable
"""A line or text as it lies in the file, a table's row as JSON values, or a row that cannot be told."""


def separator_of(file_format: Format, document_separator: str | None) -> bytes | None:
    """What stands between the records of a file; None where it is one record, or a table."""
    if file_format.startswith("jsonl"):
        return b"\n"
    return document_separator.encode() if file_format.startswith("txt") and document_separator is not None else None


def read_raw(url: str, file_format: Format, separator: bytes | None, *, first: int = 0, offset: int = 0) -> Iterator[Raw]:
    """The raw records of a file in order, blank ones among them.

    Args:
        url: of the file.
        file_format: how it is read.
        separator: what stands between records (`separator_of`).
        first: number of the record to begin with.
        offset: where it begins, in decompressed bytes; of no meaning in a table.

    Raises:
        DamagedFileError: the file is damaged as a whole.
        SourceError: it cannot be read.
    """
    with reading(url, file_format), closing(open_file(url)) as stream:
        if file_format == "parquet":
            yield from _rows(stream, first)
            return
        chunks = _chunks(stream, file_format, offset)
        yield from iter([b"".join(chunks)]) if separator is None else _separated(chunks, separator)


@contextmanager
def reading(url: str, file_format: Format) -> Iterator[None]:
    """Errors of files, archives and tables as ones that name the file."""
    try:
        yield
    except (*_DAMAGE, OSError, ImportError) as error:
        # What Arrow finds wrong with a table's bytes is an OSError too, but none of the system's.
        damaged = isinstance(error, _DAMAGE) or (file_format == "parquet" and isinstance(error, OSError) and error.errno is None)
        message = f"'{url}' cannot be read as {file_format}: {error or type(error).__name__}"
        raise (DamagedFileError if damaged else SourceError)(message) from error
    except Exception as error:
        if "://" in url and not isinstance(error, SourceError):  # each remote client has exceptions of its own
            raise SourceError(f"'{url}' cannot be read: {error or type(error).__name__}") from error
        raise


def _chunks(stream: IO[bytes], file_format: Format, offset: int) -> Iterator[bytes]:
    """Decompressed bytes from an offset on; a compressed file is read from its beginning for that."""
    if file_format.endswith(".gz"):
        chunks = _gzip_chunks(stream)
    elif file_format.endswith(".zst"):
        chunks = _zstd_chunks(stream)
    else:
        stream.seek(offset)
        yield from iter(lambda: stream.read(_CHUNK), b"")
        return
    for chunk in chunks:
        if offset < len(chunk):
            yield chunk[offset:]
        offset = max(0, offset - len(chunk))


def _gzip_chunks(stream: IO[bytes]) -> Iterator[bytes]:
    with gzip.open(stream, "rb") as opened, closing(opened):
        yield from iter(lambda: opened.read(_CHUNK), b"")


def _zstd_chunks(stream: IO[bytes]) -> Iterator[bytes]:
    """Decompressed chunks over all frames of the file; a truncated frame is an error, not an end."""
    decompressor = zstandard.ZstdDecompressor(max_window_size=_LARGE_WINDOW)
    frame = None
    size = _FEWEST_READ
    while data := stream.read(size):
        length = 0
        while data:
            frame = frame or decompressor.decompressobj()
            chunk = frame.decompress(data)
            length += len(chunk)
            yield chunk
            data = frame.unused_data if frame.eof else b""
            frame = None if frame.eof else frame
        if length < _CHUNK // 2:
            size = min(2 * size, _MOST_READ)
        elif length > 2 * _CHUNK:
            size = max(size // 2, _FEWEST_READ)
    if frame is not None:
        raise EOFError("the archive is truncated")


def _separated(chunks: Iterator[bytes], separator: bytes) -> Iterator[bytes]:
    """What stands between separators, wherever chunks end."""
    begun: list[bytes] = []
    rest = b""  # so much of the end as may be the beginning of a separator
    for chunk in chunks:
        *complete, last = (rest + chunk if rest else chunk).split(separator)
        for piece in complete:
            if begun:
                begun.append(piece)
                piece = b"".join(begun)
                begun.clear()
            yield piece
        cut = max(0, len(last) - len(separator) + 1)
        if cut:
            begun.append(last[:cut])
        rest = last[cut:]
    yield b"".join([*begun, rest])


def _rows(stream: IO[bytes], first: int) -> Iterator[dict[str, Any] | Unreadable]:
    # Buffered, and one batch at a time: memory does not follow the size of the table's row groups.
    file = pq.ParquetFile(stream, buffer_size=_CHUNK, pre_buffer=False)
    group = 0
    while group < file.num_row_groups and first >= file.metadata.row_group(group).num_rows:
        first -= file.metadata.row_group(group).num_rows
        group += 1
    is_plain = all(any(plain(field.type) for plain in _PLAIN_TYPES) for field in file.schema_arrow)
    for batch in file.iter_batches(batch_size=_BATCH_ROWS, row_groups=list(range(group, file.num_row_groups))):
        wanted = batch.slice(min(first, batch.num_rows))
        first -= batch.num_rows - wanted.num_rows
        rows: list[dict[str, Any] | Unreadable]
        try:
            rows = wanted.to_pylist() if is_plain else [_json_values(row) for row in wanted.to_pylist()]
        except (ValueError, OverflowError, RecursionError, pa.ArrowException):
            rows = [_row(wanted.slice(row, 1)) for row in range(wanted.num_rows)]
        yield from rows


def _row(row: pa.RecordBatch) -> dict[str, Any] | Unreadable:
    """A row of a batch that holds something that Python cannot tell: values that it lacks (nanoseconds, the year 10000) as text."""
    values: dict[str, Any] = {}
    for name, column in zip(row.schema.names, row.columns, strict=True):
        try:
            try:
                values[name] = _json_values(column[0].as_py())
            except UnicodeDecodeError:
                raise
            except (ValueError, OverflowError, pa.ArrowException):
                values[name] = column.cast(pa.string())[0].as_py()
        except UnicodeDecodeError as error:
            return Unreadable(_shown_row(row), f"not valid UTF-8: {error.reason} at byte {error.start}")
        except (ValueError, OverflowError, RecursionError, pa.ArrowException) as error:
            return Unreadable(_shown_row(row), f"value that cannot be read: {name}: {error}")
    return values


def _json_values(value: Any) -> Any:
    """A value as JSON has it: bytes are text, or no valid record; what JSON lacks is text too."""
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else None
        case bytes():
            return value.decode("utf-8")
        case dict():
            return {str(name): _json_values(item) for name, item in value.items()}
        case list() | tuple():
            return [_json_values(item) for item in value]
        case _:
            return str(value)


def _shown_row(row: pa.RecordBatch) -> str:
    shown = []
    for name, column in zip(row.schema.names, row.columns, strict=True):
        is_text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
        value = column.cast(pa.large_binary())[0].as_py() if is_text else None
        shown.append(f"{name}: {shown_bytes(value) if value is not None else '…'}")
    return "\n".join(shown)[:MAX_REJECTED_CHARACTERS]


def shown_bytes(data: bytes) -> str:
    """Bytes as a person can read them, undecodable ones as backslash escapes, cut to `MAX_REJECTED_CHARACTERS`."""
    # No character takes more than four bytes: no need to decode all of a long record.
    return data[: 4 * MAX_REJECTED_CHARACTERS].decode("utf-8", "backslashreplace")[:MAX_REJECTED_CHARACTERS]


def raw_bytes(raw: Raw) -> bytes:
    """The record's content, for a digest: the same for the same line or text, and for the same values of a row."""
    return raw if isinstance(raw, bytes) else json.dumps(raw, ensure_ascii=False).encode("utf-8", "surrogatepass")
