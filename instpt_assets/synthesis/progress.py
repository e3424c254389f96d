"""Finished chains made durable while their shard runs, so that a rerun recomputes only the others.

Under `<store>/_progress/<asset>/<partition>/<identity>/` lie segments: JSON lines, each with a checksum in front, one line a chain, keyed
by chain identity. A segment is written at once and never changed. A line that does not agree with its checksum is left out and counted.
An artifact of the same shard that was committed under another identity serves as a source of finished chains too.
"""

import hashlib
import json
import time
import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

import polars as pl

from instpt_assets.store.manifest import Spec, canonical_json
from instpt_assets.store.store import Store, StoreError
from instpt_assets.synthesis.chains import chain_identity, generation_context
from instpt_assets.synthesis.prompt import Pair
from instpt_assets.synthesis.scheduler import Shot

SYNTHESIZER = "instruction_synthesizer"


class ProgressLog:
    """The unfinished work on one shard.

    Args:
        store: where it lies.
        spec: the artifact that is being made.
        max_chains: chains that wait at most before they are written.
        max_seconds: seconds that a finished chain waits at most.

    Attributes:
        num_damaged: lines and segments that `load` could not use.
    """

    def __init__(self, store: Store, spec: Spec, *, max_chains: int = 512, max_seconds: float = 10.0) -> None:
        self._store = store
        self._partition = store.path("_progress", spec.asset, spec.partition)
        self._folder = f"{self._partition}/{spec.identity}"
        self._max_chains, self._max_seconds = max_chains, max_seconds
        self._writer, self._number = uuid.uuid4().hex[:12], 0
        self._waiting: list[str] = []
        self._written = time.monotonic()
        self.num_damaged = 0

    def load(self, wanted: Collection[str]) -> dict[str, Sequence[Shot]]:
        """Finished chains among the wanted identities, from whatever version of the shard they were made for."""
        found = dict[str, Sequence[Shot]]()
        self._store.fs.invalidate_cache()
        for path in sorted(self._store.fs.find(self._partition)):
            if not path.endswith(".jsonl"):
                continue
            for line in self._store.fs.cat_file(path).split(b"\n"):
                if not line:
                    continue
                checksum, _, text = line.partition(b" ")
                if _checksum(text) != checksum.decode("ascii", "replace"):
                    self.num_damaged += 1
                    continue
                chain = json.loads(text)
                if chain["identity"] in wanted:
                    found[chain["identity"]] = [_shot(shot) for shot in chain["shots"]]
        return found

    def append(self, identity: str, shots: Iterable[Shot]) -> None:
        """Add a finished chain; it is written with others, soon."""
        text = canonical_json({"identity": identity, "shots": [_struct(shot) for shot in shots]}).encode()
        self._waiting.append(f"{_checksum(text)} {text.decode()}\n")
        if len(self._waiting) >= self._max_chains or time.monotonic() - self._written >= self._max_seconds:
            self.flush()

    def flush(self) -> None:
        """Write what waits."""
        if self._waiting:
            self._store.write_text(f"{self._folder}/{self._writer}-{self._number:06d}.jsonl", "".join(self._waiting))
            self._number += 1
        self._waiting, self._written = [], time.monotonic()

    def remove(self) -> None:
        """Delete the log: its chains are in the committed artifact."""
        self._waiting = []
        try:
            self._store.fs.rm(self._folder, recursive=True)
        except FileNotFoundError:
            return


def load_committed(store: Store, spec: Spec, wanted: Collection[str]) -> dict[str, Sequence[Shot]]:
    """Chains among the wanted identities in artifacts of the same shard committed under other identities; damaged ones are passed over."""
    context = generation_context(spec.recipe, spec.code_version, spec.input(SYNTHESIZER).digest)
    found = dict[str, Sequence[Shot]]()
    store.fs.invalidate_cache()
    for path in sorted(store.fs.glob(store.path(spec.asset, spec.partition, "*", "manifest.json"))):
        try:
            artifact = store.get(spec.asset, spec.partition, path.rsplit("/", 2)[1])
            if artifact is None:
                continue
            manifest = artifact.manifest
            writer = [item.digest for item in manifest.inputs if item.asset == SYNTHESIZER]
            if [context] != [generation_context(manifest.recipe, manifest.code_version, digest) for digest in writer]:
                continue
            rows = pl.read_parquet(artifact.tables()).filter(pl.col("status") != "not_selected").iter_rows(named=True)
        except (StoreError, KeyError):
            continue
        for _, group in groupby(rows, key=lambda row: row["chain_id"].rsplit("-", 1)[0]):
            chain = list(group)
            identity = chain_identity(context, [row["text"] for row in chain])
            if identity in wanted and all(row["status"] != "engine_error" for row in chain):
                found[identity] = [_shot(row | {"segment": int(row["chain_id"].rsplit("-", 1)[1])}) for row in chain]
    return found


def _struct(shot: Shot) -> dict[str, Any]:
    return {**vars(shot), "pairs": [pair.to_struct() for pair in shot.pairs]}


def _shot(row: Mapping[str, Any]) -> Shot:
    fields = {name: row[name] for name in Shot.__dataclass_fields__}
    return Shot(**fields | {"pairs": tuple(Pair.from_struct(pair) for pair in row["pairs"])})


def _checksum(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()[:16]
