"""The signatures of all shards as one table: documents are numbered in the order of the shards, in each in the order of its rows."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from instpt_assets.corpus.signatures import Signatures


@dataclass(frozen=True)
class RowGroup:
    """Some consecutive documents, read together."""

    shard: int
    """Its place among the shards."""
    path: Path
    number: int
    """In its file."""
    start: int
    """The number of its first document."""
    end: int
    """The number of the document behind it."""

    def read(self, columns: Sequence[str]) -> pa.Table:
        """Its rows."""
        with pq.ParquetFile(self.path) as file:
            return file.read_row_group(self.number, list(columns))


class SignatureTables:
    """Several shards' `document_signatures`.

    Args:
        folders: of each shard, in the order of registration.
    """

    def __init__(self, folders: Mapping[str, Path]) -> None:
        self.shards = list(folders)
        self.row_groups = list(_row_groups(folders.values()))
        """Of all shards, in order; those without rows are left out."""
        self._starts = np.array([group.start for group in self.row_groups], dtype=np.int64)
        self.num_documents = self.row_groups[-1].end if self.row_groups else 0

    def row(self, number: int, columns: Sequence[str]) -> dict[str, Any]:
        """One document's row."""
        group = self.row_groups[int(np.searchsorted(self._starts, number, side="right")) - 1]
        (row,) = group.read(columns).slice(number - group.start, 1).to_pylist()
        return dict(row)


def _row_groups(folders: Iterable[Path]) -> Iterator[RowGroup]:
    end = 0
    for shard, folder in enumerate(folders):
        for path in sorted(folder.glob("data-*.parquet")):
            metadata = pq.read_metadata(path)
            for number in range(metadata.num_row_groups):
                start, end = end, end + metadata.row_group(number).num_rows
                if end > start:
                    yield RowGroup(shard, path, number, start, end)


def signature_matrix(table: pa.Table) -> Signatures:
    """(documents, permutations): the column `signature`."""
    column = table["signature"].combine_chunks()
    matrix: Signatures = column.flatten().to_numpy().reshape(len(table), -1)
    return matrix
