"""Duplicates over all shards: of two the document in the earlier registered shard stays, so that a new shard changes no older list.

Shards are gone through in the order of their registration, documents in the order of their rows. A document is removed if a document
that stayed before it has its id, its text, or an estimated Jaccard similarity of at least the threshold. What is removed removes nothing.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa
from datasketch import MinHash, MinHashLSH

from instpt_assets.corpus.tables import TableWriter, read_rows
from instpt_assets.recipe.corpora import Deduplication

_REMOVED = pa.schema([("document_id", pa.string()), ("duplicate_of", pa.string()), ("similarity", pa.float64())])
_SUMMARY = pa.schema([("shard", pa.string()), ("num_documents", pa.int64()), ("num_removed", pa.int64())])

Signature = np.ndarray[Any, np.dtype[np.uint32]]
_Kind = Literal["exact", "same_id", "near"]


def find_duplicates(signatures: Mapping[str, Path], deduplication: Deduplication, *, out: Path) -> dict[str, Any]:
    """Write `removed/<shard>.parquet` (document_id, duplicate_of, similarity) for every shard, empty ones too, and a summary table.

    Args:
        signatures: folders of `document_signatures` by shard, in the order of registration.
        deduplication: threshold and permutations.
        out: an existing folder.

    Returns:
        num_documents, num_removed = num_exact (equal text) + num_same_id (another text under an id of before) + num_near; a warning where
        ids are not unique.
    """
    (out / "removed").mkdir()
    kept = _Kept(deduplication)
    removed_by: Counter[_Kind] = Counter()
    totals = np.zeros(2, dtype=np.int64)
    with TableWriter(out, "data", _SUMMARY) as summary:
        for shard, folder in signatures.items():
            documents = 0
            with TableWriter(out / "removed", f"{shard}.parquet", _REMOVED) as removed:
                for row in read_rows(sorted(folder.glob("data-*.parquet")), ["document_id", "content_hash", "signature"]):
                    documents += 1
                    signature = np.array(row["signature"], dtype=np.uint32)
                    duplicate = kept.find(row["document_id"], row["content_hash"], signature)
                    if duplicate is None:
                        kept.add(row["document_id"], row["content_hash"], signature)
                    else:
                        removed_by[duplicate.kind] += 1
                        removed.write(
                            {"document_id": row["document_id"], "duplicate_of": duplicate.document_id, "similarity": duplicate.similarity}
                        )
            summary.write({"shard": shard, "num_documents": documents, "num_removed": removed.num_rows})
            totals += (documents, removed.num_rows)
    num_documents, num_removed = (int(total) for total in totals)
    counts = {f"num_{kind}": removed_by[kind] for kind in get_args(_Kind)}
    return {"num_documents": num_documents, "num_removed": num_removed, **counts, **warning_of_ids(removed_by["same_id"])}


def warning_of_ids(num_documents: int) -> dict[str, str]:
    """A statistic that says what to do about documents that are lost because their ids are not unique; empty where there are none."""
    return (
        {
            "warning": f"{num_documents} documents have the id of another one and are left out: ids must be unique in a corpus, or drop id_field"
        }
        if num_documents
        else {}
    )


@dataclass(frozen=True)
class _Duplicate:
    document_id: str
    similarity: float
    kind: _Kind


class _Kept:
    """The documents that stayed so far."""

    def __init__(self, deduplication: Deduplication) -> None:
        self._deduplication = deduplication
        self._index = MinHashLSH(threshold=deduplication.threshold, num_perm=deduplication.num_permutations)
        self._ids: list[str] = []
        self._signatures: list[Signature] = []
        self._by_id: dict[str, int] = {}
        self._by_hash: dict[str, int] = {}

    def find(self, document_id: str, content_hash: str, signature: Signature) -> _Duplicate | None:
        known: tuple[tuple[_Kind, int | None], ...] = (
            ("exact", self._by_hash.get(content_hash)),
            ("same_id", self._by_id.get(document_id)),
        )
        for kind, number in known:
            if number is not None:
                return _Duplicate(self._ids[number], self._similarity(number, signature), kind)
        candidates: Iterable[int] = sorted(self._index.query(self._sketch(signature)))
        best = max(candidates, key=lambda number: self._similarity(number, signature), default=None)  # of equals the first
        if best is None or (similarity := self._similarity(best, signature)) < self._deduplication.threshold:
            return None
        return _Duplicate(self._ids[best], similarity, "near")

    def add(self, document_id: str, content_hash: str, signature: Signature) -> None:
        number = len(self._ids)
        self._ids.append(document_id)
        self._signatures.append(signature)
        self._by_id[document_id] = self._by_hash[content_hash] = number
        self._index.insert(number, self._sketch(signature))

    def _similarity(self, number: int, signature: Signature) -> float:
        """Estimated Jaccard similarity: the share of permutations with equal minima."""
        return float(np.mean(self._signatures[number] == signature))

    def _sketch(self, signature: Signature) -> MinHash:
        return MinHash(len(signature), seed=self._deduplication.seed, hashvalues=signature, scheme="affine32")
