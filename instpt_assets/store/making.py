"""Find an artifact or make it: the one way in which a stage's output gets into the store."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from instpt_assets.store.manifest import Spec
from instpt_assets.store.preview import write_preview
from instpt_assets.store.store import Artifact, Draft, Store, StoreError, resolve

Inputs = Mapping[tuple[str, str], Artifact]
Build = Callable[[Spec, Inputs, Path], dict[str, Any]]
"""Writes an artifact's files into the given folder and returns its statistics."""


@dataclass(frozen=True)
class Made:
    """A stored artifact, and whether it was there before."""

    artifact: Artifact
    reused: bool


def find_or_make(store: Store, spec: Spec, build: Build) -> Made:
    """The artifact of that identity: the store's, or made now by `build`.

    Raises:
        StoreError: an input is missing or damaged, or another writer committed first.
    """
    artifact = store.find(spec)
    if artifact is not None:
        return Made(artifact, reused=True)
    start = time.monotonic()
    with store.write(spec) as draft:
        draft.statistics |= build(spec, resolve(store, spec.inputs), draft.folder)
        finish(draft, time.monotonic() - start)
    artifact = store.find(spec)
    if artifact is None:
        raise StoreError(f"{spec.asset}/{spec.partition}: committed, but not found in {store.url}")
    return Made(artifact, reused=False)


def finish(draft: Draft, seconds: float) -> None:
    """Add what every artifact has: in its statistics `num_rows` of its main table and `seconds` that it took, and a preview of the table."""
    tables = list(draft.folder.glob("data-*.parquet"))
    if tables:
        draft.statistics["num_rows"] = sum(pq.read_metadata(path).num_rows for path in tables)
    draft.statistics["seconds"] = round(seconds, 3)
    write_preview(draft.folder)
