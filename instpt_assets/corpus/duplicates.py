"""Duplicates over all shards: of two the document in the earlier registered shard stays, so that a new shard changes no older list.

Shards are gone through in the order of their registration, documents in the order of their rows. A document is removed if a document that
stayed before it has its text, or its id, or agrees with it in a band of the signature (`candidates`) and has an estimated Jaccard similarity
of at least the threshold. What is removed removes nothing. Whether a document would remove another depends on these two alone.
"""

import itertools
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
import polars as pl
import pyarrow as pa

from instpt_assets.corpus.candidates import Groups, band_keys, bands_and_rows, scratch_array, share_a_band
from instpt_assets.corpus.duplicates_report import DuplicatesReport, Pair
from instpt_assets.corpus.hashed_words import Hashes
from instpt_assets.corpus.signature_tables import RowGroup, SignatureTables, signature_matrix
from instpt_assets.corpus.signatures import Signature
from instpt_assets.corpus.tables import TableWriter
from instpt_assets.recipe.deduplication import Deduplication

_REMOVED = pa.schema([("document_id", pa.string()), ("duplicate_of", pa.string()), ("kind", pa.string()), ("similarity", pa.float64())])


def find_duplicates(signatures: Mapping[str, Path], deduplication: Deduplication, *, out: Path) -> dict[str, Any]:
    """Write `removed/<shard>.parquet` for every shard, empty ones too, a summary table (a row a shard) and a page with examples.

    Columns of a list: document_id, duplicate_of (the id of one that stays), kind (`exact`: the same text; `same_id`: another text under an
    id of before; `near`) and similarity (the estimated one; of `exact` 1; null for `same_id` if `near` is off).

    Signatures are read once, those of documents with candidates twice. What grows with the corpus lies in files beside `out`'s, removed at
    the end, but for a few bytes a document (`candidates`).

    Args:
        signatures: folders of `document_signatures` by shard, in the order of registration.
        deduplication: what counts as a duplicate.
        out: an existing folder.

    Returns:
        num_documents, num_removed = num_exact + num_same_id + num_near; a warning where ids are not unique.
    """
    (out / "removed").mkdir()
    tables = SignatureTables(signatures)
    report = DuplicatesReport(tables)
    with tempfile.TemporaryDirectory(dir=out, prefix="scratch-") as scratch:
        keys = _Keys(deduplication)
        groups = Groups(Path(scratch), keys.of(tables, Path(scratch)))
        with _Stayed(Path(scratch), groups, keys, deduplication) as stayed:
            by_shard = itertools.groupby(tables.row_groups, key=lambda group: group.shard)
            row_groups = {shard: list(found) for shard, found in by_shard}
            for shard, key in enumerate(tables.shards):
                with TableWriter(out / "removed", f"{key}.parquet", _REMOVED) as removed:
                    for row_group in row_groups.get(shard, []):
                        for pair, names in stayed.decide(row_group):
                            report.add(shard, pair)
                            removed.write({**names, "kind": pair.kind, "similarity": pair.similarity})
    return report.write(out)


class _Keys:
    """Which keys a document has: of its id, of its text, of each band of its signature."""

    def __init__(self, deduplication: Deduplication) -> None:
        self.bands, self.rows = bands_and_rows(deduplication.threshold, deduplication.num_permutations) if deduplication.near else (0, 0)
        self.columns = ["document_id", "content_hash", *(["signature"] if deduplication.near else [])]
        self.ids = slice(0, 1)
        self.texts = slice(1, 2 if deduplication.exact else 1)
        self.near = slice(self.texts.stop, self.texts.stop + self.bands)

    def of(self, tables: SignatureTables, folder: Path) -> Hashes:
        """(keys, documents)."""
        keys = scratch_array(folder / "keys", (self.near.stop, tables.num_documents), np.uint64)
        for group in tables.row_groups:
            table = group.read(self.columns)
            for column, rows in (("document_id", self.ids), ("content_hash", self.texts)):
                keys[rows, group.start : group.end] = pl.Series(table[column]).hash().to_numpy()
            if self.bands:
                keys[self.near, group.start : group.end] = band_keys(signature_matrix(table), self.bands, self.rows)
        return keys


class _Stayed:
    """The documents that stayed so far, of those that have something in common with others; each by its place in `Groups.documents`."""

    def __init__(self, folder: Path, groups: Groups, keys: _Keys, deduplication: Deduplication) -> None:
        self._groups, self._keys = groups, keys
        self._threshold = deduplication.threshold
        number = len(groups.documents)
        self._signatures = scratch_array(folder / "signatures", (number, deduplication.num_permutations), np.uint32)
        self._texts = scratch_array(folder / "texts", (number, 32), np.uint8)
        self._ids = scratch_array(folder / "id_places", (number, 2), np.int64)
        self._id_bytes = (folder / "ids").open("w+b")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._id_bytes.close()

    def decide(self, row_group: RowGroup) -> Iterator[tuple[Pair, dict[str, str]]]:
        """Go on through these documents; yields those that are removed, with document_id and duplicate_of."""
        first, last = np.searchsorted(self._groups.documents, [row_group.start, row_group.end]).tolist()
        if first == last:
            return
        numbers = self._groups.documents[first:last]
        table = row_group.read(self._keys.columns).take(numbers - row_group.start)
        ids, texts = table["document_id"].to_pylist(), table["content_hash"].to_pylist()
        signatures = signature_matrix(table) if self._keys.bands else itertools.repeat(None)
        for place, number, name, text, signature in zip(range(first, last), numbers.tolist(), ids, texts, signatures, strict=False):
            found = self._find(place, number, name, bytes.fromhex(text), signature)
            if found is None:
                self._add(place, name, bytes.fromhex(text), signature)
            else:
                pair, other = found
                yield pair, {"document_id": name, "duplicate_of": self._id(other)}

    def _find(self, place: int, number: int, name: str, text: bytes, signature: Signature | None) -> tuple[Pair, int] | None:
        """What removes the document: one of the same text, else of the same id, else of those near enough the most similar, then the first."""
        documents = self._groups.documents
        for other in self._groups.stayed(place, self._keys.texts).tolist():
            if self._texts[other].tobytes() == text:
                return Pair(number, int(documents[other]), "exact", 1.0), other
        for other in self._groups.stayed(place, self._keys.ids).tolist():
            if self._id(other) == name:
                similarity = None if signature is None else float(np.mean(self._signatures[other] == signature))
                return Pair(number, int(documents[other]), "same_id", similarity), other
        if signature is None:
            return None
        others = self._groups.stayed(place, self._keys.near)
        if not len(others):
            return None
        equal = self._signatures[others] == signature
        similarities = np.count_nonzero(equal, axis=1) / len(signature)
        near = np.flatnonzero(similarities >= self._threshold)
        near = near[share_a_band(equal[near], self._keys.bands, self._keys.rows)]
        if not len(near):
            return None
        best = near[np.argmax(similarities[near])]
        return Pair(number, int(documents[others[best]]), "near", float(similarities[best])), int(others[best])

    def _add(self, place: int, name: str, text: bytes, signature: Signature | None) -> None:
        self._groups.stays(place)
        self._texts[place] = np.frombuffer(text, dtype=np.uint8)
        if signature is not None:
            self._signatures[place] = signature
        encoded = name.encode()
        self._ids[place] = self._id_bytes.seek(0, os.SEEK_END), len(encoded)
        self._id_bytes.write(encoded)

    def _id(self, place: int) -> str:
        begin, length = self._ids[place].tolist()
        self._id_bytes.seek(begin)
        return self._id_bytes.read(length).decode()
