"""Single rows of stored tables and arrays, read where they lie: of a large artifact on S3 only what is asked for is fetched.

Bytes that are read in part cannot be compared with the digest of the whole: this is for showing, not for making artifacts.
"""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from instpt_assets.store.manifest import File
from instpt_assets.store.store import Artifact

_HEADER_BYTES = 1024


def rows_at(artifact: Artifact, rows: Collection[int], columns: Sequence[str]) -> dict[int, dict[str, Any]]:
    """Rows of the artifact's main table by their number, those of all its parts counted through; columns that it lacks are left out."""
    found: dict[int, dict[str, Any]] = {}
    wanted = np.unique(np.fromiter(rows, dtype=np.int64))
    first = 0
    for table, group in _groups(artifact):
        end = first + table.metadata.row_group(group).num_rows
        here = wanted[(first <= wanted) & (wanted < end)]
        if len(here):
            read = _read(table, group, columns).take(pa.array(here - first))
            found.update(zip(here.tolist(), read.to_pylist(), strict=True))
        first = end
    return found


def rows_with(artifact: Artifact, key: str, values: Collection[str], columns: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Rows of the artifact's main table by a column that names them."""
    found: dict[str, dict[str, Any]] = {}
    wanted = pa.array(sorted(set(values)), type=pa.string())
    for table, group in _groups(artifact):
        if len(found) == len(wanted):
            break
        places = np.flatnonzero(pc.is_in(_read(table, group, [key])[key], value_set=wanted).to_numpy(zero_copy_only=False))
        if len(places):
            for row in _read(table, group, [key, *columns]).take(pa.array(places)).to_pylist():
                found[row.pop(key)] = row
    return found


def array_part(artifact: Artifact, name: str, begin: int, end: int) -> npt.NDArray[Any]:
    """Elements begin … end - 1 of a `.npy` file [n] of the artifact."""
    path = _path(artifact, artifact.manifest.by_name[name])
    head = BytesIO(artifact.store.fs.cat_file(path, start=0, end=_HEADER_BYTES))
    np.lib.format.read_magic(head)
    _, _, dtype = np.lib.format.read_array_header_1_0(head)
    first = head.tell() + begin * dtype.itemsize
    if begin == end:
        return np.empty(0, dtype)
    return np.frombuffer(artifact.store.fs.cat_file(path, start=first, end=first + (end - begin) * dtype.itemsize), dtype=dtype)


def _groups(artifact: Artifact) -> Iterator[tuple[pq.ParquetFile, int]]:
    """The row groups of the artifact's main table, in order."""
    for name in sorted(name for name in artifact.names if name.startswith("data-") and name.endswith(".parquet")):
        with _opened(artifact, artifact.manifest.by_name[name]) as table:
            for group in range(table.num_row_groups):
                yield table, group


@contextmanager
def _opened(artifact: Artifact, file: File) -> Iterator[pq.ParquetFile]:
    store = artifact.store
    # pyarrow asks for just the bytes that it needs; the file object of a remote store would read far ahead.
    options = {} if store.is_local else {"cache_type": "none"}
    with store.fs.open(_path(artifact, file), "rb", **options) as stream, pq.ParquetFile(stream, pre_buffer=True) as table:
        yield table


def _path(artifact: Artifact, file: File) -> str:
    return f"{artifact.root}/{file.path}"


def _read(table: pq.ParquetFile, group: int, columns: Sequence[str]) -> pa.Table:
    return table.read_row_group(group, columns=[name for name in columns if name in table.schema_arrow.names])
