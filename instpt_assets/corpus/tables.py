"""Writing and reading the corpus's tables in bounded memory: Parquet (zstd) in parts and row groups, the same rows give the same bytes."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

DOCUMENTS = pa.schema([("document_id", pa.string()), ("text", pa.string()), ("source", pa.string()), ("metadata", pa.string())])
"""Columns of `raw_corpus` and `clean_corpus`; `metadata` is JSON text."""

_GROUP_ROWS = 4096
_GROUP_CHARACTERS = 8_000_000
_PART_CHARACTERS = 1_000_000_000


class TableWriter:
    """A Parquet table written row by row; an empty table is a file too.

    Args:
        folder: where the file or files go.
        stem: of a table in parts, `<stem>-00000.parquet`, …; or a file name with ending, for a table in one file.
        schema: the columns.
    """

    def __init__(self, folder: Path, stem: str, schema: pa.Schema) -> None:
        self.num_rows = 0
        self._folder, self._stem, self._schema = folder, stem, schema
        self._rows: list[Mapping[str, Any]] = []
        self._writer: pq.ParquetWriter | None = None
        self._group_characters = self._part_characters = self._parts = 0

    def write(self, row: Mapping[str, Any]) -> None:
        """Add a row."""
        self._rows.append(row)
        self.num_rows += 1
        self._group_characters += sum(len(value) for value in row.values() if isinstance(value, str))
        if len(self._rows) >= _GROUP_ROWS or self._group_characters >= _GROUP_CHARACTERS:
            self._flush()

    def _flush(self) -> None:
        if self._writer is None:
            in_parts = not self._stem.endswith(".parquet")
            name = f"{self._stem}-{self._parts:05d}.parquet" if in_parts else self._stem
            self._writer = pq.ParquetWriter(self._folder / name, self._schema, compression="zstd")
        if self._rows:
            self._writer.write_table(pa.Table.from_pylist(self._rows, schema=self._schema))
        self._part_characters += self._group_characters
        self._rows, self._group_characters = [], 0
        if self._part_characters >= _PART_CHARACTERS and not self._stem.endswith(".parquet"):
            self._close_part()

    def _close_part(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer, self._part_characters, self._parts = None, 0, self._parts + 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if kind is None and (self._rows or (self._writer is None and self._parts == 0)):
            self._flush()
        self._close_part()


def batched(rows: Iterable[dict[str, Any]], *, characters: int, most_rows: int) -> Iterator[list[dict[str, Any]]]:
    """Documents several at a time: a batch ends with the row that fills it, in characters of `text` or in rows."""
    batch: list[dict[str, Any]] = []
    held = 0
    for row in rows:
        batch.append(row)
        held += len(row["text"])
        if held >= characters or len(batch) >= most_rows:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch


def read_rows(tables: Sequence[Path], columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The rows of a table in parts, in order, in bounded memory; see `read_batches`."""
    for batch in read_batches(tables, columns):
        yield from batch.to_pylist()


def read_batches(tables: Sequence[Path], columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """The rows of a table in parts, in order, in bounded memory: one row group at a time, which `TableWriter` keeps small."""
    for path in tables:
        with pq.ParquetFile(path) as file:
            for group in range(file.num_row_groups):  # a batch over several groups would hold that many rows, however long they are
                yield from file.iter_batches(batch_size=_GROUP_ROWS, row_groups=[group], columns=list(columns))
