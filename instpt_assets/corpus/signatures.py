"""MinHash signatures of documents (Broder 1997), from which duplicates are found without their texts."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rensa import RMinHash

from instpt_assets.corpus.shingles import shingles
from instpt_assets.corpus.tables import batched, read_rows
from instpt_assets.recipe.deduplication import Deduplication

Signature = np.ndarray[Any, np.dtype[np.uint32]]
"""(permutations)"""
Signatures = np.ndarray[Any, np.dtype[np.uint32]]
"""(documents, permutations)"""

_ALGORITHM = 2
"""Of rensa's signatures: those of another one cannot be compared with what stores hold."""
_EXCERPT_CHARACTERS = 120
_BATCH_CHARACTERS = 1 << 20
_GROUP_ROWS = 4096


def write_signatures(tables: Sequence[Path], deduplication: Deduplication, *, out: Path) -> dict[str, Any]:
    """Write a row a document.

    Columns: document_id, content_hash (SHA-256 of the text), excerpt (its first characters, for people) and, unless `near` is off,
    signature (list of `num_permutations` uint32).

    Args:
        tables: the parts of a shard's `raw_corpus`.
        deduplication: shingles, permutations and seed.
        out: an existing folder.

    Returns:
        num_documents.
    """
    columns = [("document_id", pa.string()), ("content_hash", pa.string()), ("excerpt", pa.string())]
    if deduplication.near:
        columns.append(("signature", pa.list_(pa.uint32(), deduplication.num_permutations)))
    schema = pa.schema(columns)
    num_documents = 0
    with pq.ParquetWriter(out / "data-00000.parquet", schema, compression="zstd", use_dictionary=False) as writer:
        waiting: list[pa.RecordBatch] = []
        for rows in batched(read_rows(tables, ["document_id", "text"]), characters=_BATCH_CHARACTERS, most_rows=_GROUP_ROWS):
            texts = [row["text"] for row in rows]
            arrays = [
                pa.array([row["document_id"] for row in rows]),
                pa.array([hashlib.sha256(text.encode()).hexdigest() for text in texts]),
                pa.array([text[:_EXCERPT_CHARACTERS] for text in texts]),
            ]
            if deduplication.near:
                found = pa.array(signatures(texts, deduplication).ravel())
                arrays.append(pa.FixedSizeListArray.from_arrays(found, deduplication.num_permutations))
            waiting.append(pa.RecordBatch.from_arrays(arrays, schema=schema))
            num_documents += len(rows)
            if sum(batch.num_rows for batch in waiting) >= _GROUP_ROWS:
                writer.write_table(pa.Table.from_batches(waiting))
                waiting = []
        if waiting:
            writer.write_table(pa.Table.from_batches(waiting))
    return {"num_documents": num_documents}


def signatures(texts: Sequence[str], deduplication: Deduplication) -> Signatures:
    """The texts' signatures: two have as large a share of equal numbers as their shingles have Jaccard similarity, on average.

    They are rensa's R-MinHash over the full set of shingles (its `rho` variant samples, so that order and length would count).
    """
    assert RMinHash.ALGORITHM_VERSION == _ALGORITHM, "raise the code version of document_signatures with the algorithm"
    hashes, offsets = shingles(texts, deduplication.shingle_words)
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(hashes, offsets, deduplication.num_permutations, deduplication.seed)
    return np.array(matrix.to_rows(), dtype=np.uint32).reshape(len(texts), deduplication.num_permutations)
