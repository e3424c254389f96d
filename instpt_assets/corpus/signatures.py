"""MinHash signatures of documents (Broder 1997), from which duplicates are found without their texts."""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from datasketch import MinHash

from instpt_assets.corpus.tables import TableWriter, read_rows
from instpt_assets.recipe.corpora import Deduplication

_WORD = re.compile(r"\w+")
_BATCH_SHINGLES = 8192


def write_signatures(tables: Sequence[Path], deduplication: Deduplication, *, out: Path) -> dict[str, Any]:
    """Write document_id, content_hash (SHA-256 of the text) and signature (list of `num_permutations` uint32) of every document.

    Args:
        tables: the parts of a shard's `raw_corpus`.
        deduplication: shingles, permutations and seed.
        out: an existing folder.

    Returns:
        num_documents.
    """
    signature = pa.list_(pa.uint32(), deduplication.num_permutations)
    schema = pa.schema([("document_id", pa.string()), ("content_hash", pa.string()), ("signature", signature)])
    empty = MinHash(deduplication.num_permutations, seed=deduplication.seed, scheme="affine32")
    with TableWriter(out, "data", schema) as writer:
        for row in read_rows(tables, ["document_id", "text"]):
            writer.write(
                {
                    "document_id": row["document_id"],
                    "content_hash": hashlib.sha256(row["text"].encode()).hexdigest(),
                    "signature": _signature(row["text"], deduplication.shingle_words, empty),
                }
            )
    return {"num_documents": writer.num_rows}


def shingles(text: str, words: int) -> set[str]:
    """The distinct runs of so many lower-cased words; of a text with fewer words the whole text."""
    found = _WORD.findall(text.lower())
    if len(found) < words:
        return {text.lower()}
    return {" ".join(found[i : i + words]) for i in range(len(found) - words + 1)}


def _signature(text: str, words: int, empty: MinHash) -> "np.ndarray[Any, np.dtype[np.uint32]]":
    sketch = empty.copy()
    encoded = [shingle.encode() for shingle in shingles(text, words)]
    # In batches: a sketch computes all permutations of a batch at once.
    for start in range(0, len(encoded), _BATCH_SHINGLES):
        sketch.update_batch(encoded[start : start + _BATCH_SHINGLES])
    return np.asarray(sketch.hashvalues, dtype=np.uint32)
