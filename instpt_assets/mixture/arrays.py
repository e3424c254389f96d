"""The files of tokenized rows: flat token ids with row offsets, memory-mappable, and a table that names the rows.

`tokens.npy` holds all rows' ids one behind the other (uint16 if the vocabulary fits, else uint32), each row ended by one EOS;
`offsets.npy` (int64, rows + 1) says where rows begin; `data-00000.parquet` has a line a row, in the same order.
"""

from array import array
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

TOKENS, OFFSETS, TABLE = "tokens.npy", "offsets.npy", "data-00000.parquet"

ROW_SCHEMA = pa.schema(
    [("row_id", pa.string()), ("document_ids", pa.list_(pa.string())), ("num_tokens", pa.int64()), ("num_bytes", pa.int64())]
)
"""Columns of every table of rows: `num_tokens` counts the EOS, `num_bytes` the text in UTF-8 without it."""

_ROWS_A_GROUP = 16_384


def token_dtype(vocab_size: int) -> np.dtype[Any]:
    """The smallest of uint16 and uint32 that holds every id below `vocab_size`."""
    return np.dtype(np.uint16 if vocab_size <= 65_536 else np.uint32)


class ArrayWriter:
    """A `.npy` file written piece by piece.

    Args:
        path: the file.
        dtype: of its elements.
        width: None for an array [n], else for [n, width].
    """

    def __init__(self, path: Path, dtype: npt.DTypeLike, *, width: int | None = None) -> None:
        self._file = path.open("wb")
        self._dtype = np.dtype(dtype)
        self._inner = () if width is None else (width,)
        self.length = 0
        self._header_bytes = self._write_header()

    def append(self, values: npt.ArrayLike) -> None:
        """Write values behind those already there; their type and width must fit the array's."""
        pieces = np.ascontiguousarray(values, dtype=self._dtype).reshape(-1, *self._inner)
        self._file.write(pieces.data)
        self.length += len(pieces)

    def close(self) -> None:
        """Write the final length into the header and close the file."""
        self._file.seek(0)
        assert self._write_header() == self._header_bytes, "numpy reserves room for the first axis to grow"
        self._file.close()

    def _write_header(self) -> int:
        header = {"descr": np.lib.format.dtype_to_descr(self._dtype), "fortran_order": False, "shape": (self.length, *self._inner)}
        np.lib.format.write_array_header_1_0(self._file, header)
        return self._file.tell()


class RowWriter:
    """Writes `tokens.npy`, `offsets.npy` and `data-00000.parquet`, many rows at a time; memory does not grow with the rows.

    Args:
        out: the artifact's folder.
        vocab_size: decides the type of the ids.
        eos_id: ends every row.
        columns: further columns of the table.
    """

    def __init__(self, out: Path, *, vocab_size: int, eos_id: int, columns: Sequence[pa.Field] = ()) -> None:
        out.mkdir(parents=True, exist_ok=True)
        self._eos_id = eos_id
        self._type_code = "H" if token_dtype(vocab_size) == np.uint16 else "I"
        self._tokens = ArrayWriter(out / TOKENS, token_dtype(vocab_size))
        self._offsets = ArrayWriter(out / OFFSETS, np.int64)
        self._offsets.append([0])
        self._schema = pa.schema([*ROW_SCHEMA, *columns])
        self._table = pq.ParquetWriter(out / TABLE, self._schema, compression="zstd")
        self._pending: list[pa.Table] = []
        self._num_pending = 0
        self.num_rows = 0
        self.num_bytes = 0

    @property
    def num_tokens(self) -> int:
        """Tokens written so far, each row's EOS included."""
        return self._tokens.length

    def flatten(self, ids: Iterable[list[int]]) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
        """Rows' ids one behind the other, each row ended by EOS, and how many each then has; what `append` takes."""
        flat, ends = array(self._type_code), [0]
        for row in ids:
            flat.fromlist(row)
            flat.append(self._eos_id)
            ends.append(len(flat))
        return np.asarray(flat), np.diff(ends)

    def append(self, flat: npt.NDArray[Any], num_tokens: npt.NDArray[np.int64], columns: Mapping[str, pa.Array | Sequence[Any]]) -> None:
        """Write rows.

        Args:
            flat: their ids, of `flatten`.
            num_tokens: [rows], of `flatten`.
            columns: [rows] each: the values of the other columns of the table.

        Raises:
            ValueError: a text gave the EOS token itself, so that EOS would not tell where rows end.
        """
        if np.count_nonzero(flat == self._eos_id) != len(num_tokens):
            found = np.add.reduceat(flat == self._eos_id, np.cumsum(num_tokens) - num_tokens, dtype=np.int64)
            row = pa.array(columns["row_id"])[int(np.argmax(found > 1))].as_py()
            raise ValueError(
                f"the text of row {row} holds the EOS token ({self._eos_id}) after encoding, with special tokens disabled: the tokenizer knows it "
                "as an ordinary piece of text too; name another eos_token in its tokenizer_config.json"
            )
        self._offsets.append(self._tokens.length + np.cumsum(num_tokens))
        self._tokens.append(flat)
        values = {**columns, "num_tokens": num_tokens}
        rows = pa.table([_typed(values[field.name], field.type) for field in self._schema], schema=self._schema)
        self.num_rows += rows.num_rows
        self.num_bytes += pc.sum(rows["num_bytes"]).as_py() or 0
        self._pending.append(rows)
        self._num_pending += rows.num_rows
        # Groups of equal size, so that the file does not depend on how many rows come at a time.
        while self._num_pending >= _ROWS_A_GROUP:
            self._flush(_ROWS_A_GROUP)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None and self._num_pending:
            self._flush(self._num_pending)
        self._tokens.close()
        self._offsets.close()
        self._table.close()

    def _flush(self, num_rows: int) -> None:
        pending = pa.concat_tables(self._pending)
        self._table.write_table(pending.slice(0, num_rows).combine_chunks())
        self._pending = [pending.slice(num_rows)]
        self._num_pending -= num_rows


def _typed(values: pa.Array | Sequence[Any], kind: pa.DataType) -> pa.Array:
    return values.cast(kind) if isinstance(values, pa.Array) else pa.array(values, type=kind)


class TokenizedRows:
    """Reads what `RowWriter` wrote; tokens and offsets stay on disk, memory-mapped.

    Args:
        folder: the artifact's folder; `tokens.npy` may be missing from it until `tokens` or `row` is asked for.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # Plain views of the maps: slicing np.memmap itself costs several times as much.
        self.offsets: npt.NDArray[np.int64] = np.load(folder / OFFSETS, mmap_mode="r").view(np.ndarray)

    @cached_property
    def tokens(self) -> npt.NDArray[Any]:
        """Token ids of all rows, one behind the other."""
        return np.load(self.folder / TOKENS, mmap_mode="r").view(np.ndarray)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def num_tokens(self) -> npt.NDArray[np.int64]:
        """Tokens of each row, its EOS included."""
        return np.diff(self.offsets)

    def row(self, index: int) -> npt.NDArray[Any]:
        """Token ids of one row, its EOS included."""
        return self.tokens[self.offsets[index] : self.offsets[index + 1]]

    def column(self, name: str) -> pa.ChunkedArray:
        """A column of the table of rows."""
        return pq.read_table(self.folder / TABLE, columns=[name])[name]
