"""Reading tables with pairs, in batches: memory stays the same however long a table is."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from instpt_assets.augmentation.layouts import Pair

_BATCH_ROWS = 256  # small, so that few objects live at once: Python's search for garbage takes a sixth of the time at 2048


class Passage(NamedTuple):
    """A row of `instruction_pairs`, as far as augmentation needs it; what was not selected has neither chain nor shot."""

    passage_id: str
    document_id: str
    chain_id: str | None
    shot: int | None
    text: str
    status: str
    pairs: Sequence[Pair]


def read_passages(tables: Iterable[Path]) -> Iterator[list[Passage]]:
    """The rows of `instruction_pairs` tables, in order, some thousand at a time."""
    for batch in batches(tables, Passage._fields):
        yield list(map(Passage, *(column(batch, name) for name in Passage._fields[:-1]), pair_lists(batch.column("pairs"))))


def batches(tables: Iterable[Path], columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """The named columns of Parquet tables, some thousand rows at a time, in order."""
    for table in tables:
        with pq.ParquetFile(table) as file:
            yield from file.iter_batches(batch_size=_BATCH_ROWS, columns=list(columns))


def column(batch: pa.RecordBatch, name: str) -> list[Any]:
    """A column as a list."""
    return _values(batch.column(name))


def pair_lists(array: pa.Array) -> list[list[Pair]]:
    """Each row's pairs, of a column `list[struct{instruction, response, options, reasoning}]`; null is none."""
    structs = array.flatten()
    options = structs.field("options")
    pairs = map(
        Pair,
        _values(structs.field("instruction")),
        _values(structs.field("response")),
        _options(options) if pa.types.is_nested(options.type) else [()] * len(structs),
        _values(structs.field("reasoning")),
    )
    return [list(islice(pairs, number)) for number in _lengths(array)]


def _options(lists: pa.Array) -> list[Sequence[str]]:
    items = iter(_values(lists.flatten()))
    return [tuple(islice(items, number)) if number else () for number in _lengths(lists)]


def _values(array: pa.Array) -> list[Any]:
    return pl.Series(values=array).to_list()  # several times faster than pyarrow's own


def _lengths(lists: pa.Array) -> list[int]:
    return _values(lists.value_lengths().fill_null(0))
