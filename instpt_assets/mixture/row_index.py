"""What a mixture needs to know of a tokenized artifact: how long its rows are, and which documents they hold.

It is read from offsets and table, never from the tokens, and kept as a small file in the store's cache under the artifact's digest, so that
an artifact is read once, however often it is mixed: 13 bytes a raw document.
"""

import json
import os
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from instpt_assets.mixture.ordering import Keys
from instpt_assets.store.store import Artifact, Store

_CACHE = "row_index-1"
"""Folder in the store's cache; another number where the file's layout changes."""
_DIGEST_BYTES = 16

Source = tuple[str, str]
"""Asset and partition of a tokenized artifact."""


@dataclass(frozen=True)
class RowIndex:
    """The rows of a tokenized artifact."""

    num_tokens: npt.NDArray[np.int32]
    """Of each row [rows], its EOS included."""
    num_documents: npt.NDArray[Any]
    """Of each row [rows], unsigned: 1 in raw rows, none in instructions."""
    documents: Keys
    """64-bit hashes of the documents' ids, row by row [sum of num_documents]."""
    components: npt.NDArray[np.str_]
    """Of instructions: the components, as `component` counts them."""
    component: npt.NDArray[np.uint8]
    """Of instructions: the component of each row [rows]; else empty."""

    def __len__(self) -> int:
        return len(self.num_tokens)

    def rows_of(self, component: str) -> npt.NDArray[np.bool_]:
        """Which rows [rows] belong to a component of the instructions."""
        return self.components[self.component] == component

    def rows_with(self, documents: Keys) -> npt.NDArray[np.bool_]:
        """Which rows [rows] hold any of the documents."""
        found = np.isin(self.documents, documents)
        if len(found) == len(self):
            return found  # a document each
        rows = np.zeros(len(self), dtype=bool)
        rows[np.repeat(np.arange(len(self)), self.num_documents)[found]] = True
        return rows

    def documents_of(self, rows: npt.NDArray[np.bool_]) -> Keys:
        """Hashes of the documents that some of the rows [rows] hold, each once."""
        return np.unique(self.documents[np.repeat(rows, self.num_documents)])


Indices = Mapping[Source, Callable[[], RowIndex]]
"""The tokenized artifacts of a mixture; each call reads one."""


def read_row_index(folder: Path) -> RowIndex:
    """Index a tokenized artifact; its `tokens.npy` may be missing."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from instpt_assets.mixture.arrays import OFFSETS, TABLE

    with pq.ParquetFile(folder / TABLE) as file:
        columns = ["document_ids", *({"component"} & set(file.schema_arrow.names))]
        table = file.read(columns=columns, use_threads=False)  # small files by the thousand: threads cost more than they bring
    ids = table["document_ids"].combine_chunks()
    ids = pa.concat_arrays(ids.chunks) if isinstance(ids, pa.ChunkedArray) else ids
    counts = np.diff(ids.offsets.to_numpy())
    names = table["component"].to_numpy() if "component" in columns else np.empty(0, dtype=str)
    components, component = np.unique(names.astype(str), return_inverse=True)
    return RowIndex(
        num_tokens=np.diff(np.load(folder / OFFSETS)).astype(np.int32),
        num_documents=counts.astype(np.min_scalar_type(int(counts.max(initial=0)))),
        documents=document_keys(ids.flatten().to_pylist()),
        components=components,
        component=component.astype(np.uint8),
    )


def document_keys(document_ids: Iterable[str]) -> Keys:
    """64-bit hashes of documents' ids, as `RowIndex.documents` has them."""
    return np.frombuffer(b"".join(blake2b(name.encode(), digest_size=8).digest() for name in document_ids), dtype="<u8")


def folder_indices(folders: Mapping[Source, Path]) -> Indices:
    """Indices of tokenized artifacts that lie in folders, read anew each time."""
    return {source: partial(read_row_index, folder) for source, folder in folders.items()}


def stored_indices(store: Store, artifacts: Mapping[Source, Artifact]) -> Indices:
    """Indices of a store's tokenized artifacts. Those that the cache lacks are made now; offsets and tables are read for it, no token."""
    missing = [artifact for artifact in artifacts.values() if not _cached(artifact).is_file()]
    store.each(_index, missing)
    return {source: partial(_read_cached, artifact) for source, artifact in artifacts.items()}


def _cached(artifact: Artifact) -> Path:
    return artifact.store.local_cache() / _CACHE / f"{artifact.manifest.digest}.bin"


def _read_cached(artifact: Artifact) -> RowIndex:
    try:
        return _from_bytes(_cached(artifact).read_bytes())
    except (OSError, ValueError):
        return _index(artifact)  # swept away or damaged meanwhile


def _index(artifact: Artifact) -> RowIndex:
    from instpt_assets.mixture.arrays import OFFSETS

    artifact.file(OFFSETS)
    artifact.tables()
    index = read_row_index(artifact.store.local_folder(artifact))
    path = _cached(artifact)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    temporary.write_bytes(_to_bytes(index))
    os.replace(temporary, path)
    return index


def _to_bytes(index: RowIndex) -> bytes:
    """Its digest, a line of JSON with types and lengths, and the arrays one behind the other; NumPy's archives take ten times as long to open."""
    arrays = vars(index)
    header = json.dumps({name: (array.dtype.str, len(array)) for name, array in arrays.items()}).encode() + b"\n"
    content = b"".join([header, *(array.tobytes() for array in arrays.values())])
    return blake2b(content, digest_size=_DIGEST_BYTES).digest() + content


def _from_bytes(stored: bytes) -> RowIndex:
    digest, content = stored[:_DIGEST_BYTES], stored[_DIGEST_BYTES:]
    if blake2b(content, digest_size=_DIGEST_BYTES).digest() != digest:
        raise ValueError("these are not the bytes that were written")
    header, _, _ = content.partition(b"\n")
    begin, arrays = len(header) + 1, {}
    for name, (kind, length) in json.loads(header).items():
        arrays[name] = np.frombuffer(content, dtype=kind, count=length, offset=begin)
        begin += arrays[name].nbytes
    return RowIndex(**arrays)
