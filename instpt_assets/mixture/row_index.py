"""What a mixture needs to know of a tokenized artifact: how long its rows are, and which documents they hold.

It is read from offsets and table, never from the tokens, and kept as a small file in the store's cache under the artifact's digest, so that
an artifact is read once, however often it is mixed: 13 bytes a raw document.
"""

import os
import uuid
import zipfile
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


Indices = Mapping[Source, Callable[[], RowIndex]]
"""The tokenized artifacts of a mixture; each call reads one."""


def read_row_index(folder: Path) -> RowIndex:
    """Index a tokenized artifact; its `tokens.npy` may be missing."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from instpt_assets.mixture.arrays import OFFSETS, TABLE

    columns = ["document_ids", *({"component"} & set(pq.read_schema(folder / TABLE).names))]
    table = pq.read_table(folder / TABLE, columns=columns)
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
    return artifact.store.local_cache() / _CACHE / f"{artifact.manifest.digest}.npz"


def _read_cached(artifact: Artifact) -> RowIndex:
    try:
        with np.load(_cached(artifact)) as arrays:  # a zip archive: it checks each array's CRC
            return RowIndex(**arrays)
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
        return _index(artifact)  # swept away or damaged meanwhile


def _index(artifact: Artifact) -> RowIndex:
    from instpt_assets.mixture.arrays import OFFSETS

    artifact.file(OFFSETS)
    artifact.tables()
    index = read_row_index(artifact.store.local_folder(artifact))
    path = _cached(artifact)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    with temporary.open("wb") as stream:
        np.savez(stream, **vars(index))
    os.replace(temporary, path)
    return index
