"""Ingesting a shard into `raw_corpus`: every record read ends as a document or, with reason and position, among the rejected."""

import hashlib
import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa

from instpt_assets.corpus.digest_set import DigestSet
from instpt_assets.corpus.normalizing import normalize, replace_surrogates
from instpt_assets.corpus.records import MAX_REJECTED_CHARACTERS, Record, Rejection, read_records
from instpt_assets.corpus.shards import Shard, check_shard
from instpt_assets.corpus.tables import DOCUMENTS, TableWriter
from instpt_assets.recipe.corpora import Corpus

_REJECTED = pa.schema([("record", pa.string()), ("reason", pa.string()), ("position", pa.int64())])


def ingest(shard: Shard, corpus: Corpus, *, out: Path, digest: str | None = None) -> dict[str, Any]:
    """Write a shard's documents (`data-*.parquet`) and what is rejected (`rejected.parquet`).

    Texts are normalised (`normalizing`). A document's id is `<corpus>/<its own id>`, or `<corpus>/<file>-<position>` where the corpus
    has no ids (with `-<place>` behind it where it stood in a list), however the file is cut into shards.
    Its metadata are the record's other fields, with the corpus's licence or else its own under `license`: a text or null, what else it
    is as JSON text.

    Args:
        shard: what to read.
        corpus: its fields and licence.
        out: an existing folder.
        digest: the shard's when its identity was told (`shard_digest`); any by default.

    Returns:
        num_read = num_documents + num_rejected, num_characters (of the documents), rejected_by_reason.

    Raises:
        SourceError: the shard's file cannot be read, or changed meanwhile.
    """
    characters = 0
    reasons: Counter[str] = Counter()
    seen = DigestSet()
    with TableWriter(out, "data", DOCUMENTS) as documents, TableWriter(out, "rejected.parquet", _REJECTED) as rejected:
        for item in read_records(shard, corpus):
            row = _document(item, shard, corpus, seen) if isinstance(item, Record) else item
            if isinstance(row, Rejection):
                reasons[row.reason.split(":")[0]] += 1
                rejected.write({"record": row.record, "reason": row.reason, "position": row.position})
            else:
                characters += len(row["text"])
                documents.write(row)
    if digest is not None:
        check_shard(shard, digest)
    return {
        "num_read": documents.num_rows + rejected.num_rows,
        "num_documents": documents.num_rows,
        "num_rejected": rejected.num_rows,
        "num_characters": characters,
        "rejected_by_reason": dict(sorted(reasons.items())),
    }


def _document(record: Record, shard: Shard, corpus: Corpus, seen: DigestSet) -> dict[str, str] | Rejection:
    text = normalize(record.text)
    # Ids by position cannot repeat.
    own_id = _position_id(shard, record) if record.id is None else " ".join(normalize(record.id).split())
    problem = "empty text" if not text else "missing id" if not own_id else None
    if problem is None and record.id is not None and not seen.add(hashlib.blake2b(own_id.encode(), digest_size=16).digest()):
        problem = f"duplicate id: '{own_id}'"
    if problem is not None:
        shown = json.dumps({"id": record.id, "text": record.text, **record.fields}, ensure_ascii=False)
        return Rejection(replace_surrogates(shown[:MAX_REJECTED_CHARACTERS]), problem, record.position)
    license = corpus.license or record.fields.get("license")
    metadata = {**record.fields, "license": license if isinstance(license, str | None) else _json(license)}
    return {
        "document_id": f"{shard.corpus}/{own_id}",
        "text": text,
        "source": shard.file_url,
        "metadata": _json(metadata),
    }


def _json(value: Any) -> str:
    try:
        text = json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False)
    except ValueError:  # a number beyond all floats, read as infinite, which JSON lacks
        text = json.dumps(_finite(value), sort_keys=True, ensure_ascii=False)
    return replace_surrogates(text)


def _finite(value: Any) -> Any:
    match value:
        case dict():
            return {key: _finite(item) for key, item in value.items()}
        case list():
            return [_finite(item) for item in value]
        case float() if not math.isfinite(value):
            return None
        case _:
            return value


def _position_id(shard: Shard, record: Record) -> str:
    return f"{shard.file_slug}-{record.position:08d}" + (f"-{record.place:02d}" if record.place is not None else "")
