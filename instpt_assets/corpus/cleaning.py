"""Cleaning a shard: its documents without duplicates and without those that the rules remove, each of which is recorded."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from instpt_assets.corpus.duplicates_report import warning_of_ids
from instpt_assets.corpus.tables import DOCUMENTS, TableWriter, read_rows
from instpt_assets.recipe.corpora import Cleaning

_REMOVED = pa.schema([("document_id", pa.string()), ("reason", pa.string())])
_SAME_ID = "id of another document"


def clean(tables: Sequence[Path], removal_list: Path, cleaning: Cleaning, *, out: Path) -> dict[str, Any]:
    """Write the documents that stay (`data-*.parquet`, unchanged rows) and those that do not (`removed.parquet`: document_id, reason).

    Args:
        tables: the parts of a shard's `raw_corpus`.
        removal_list: the shard's file of `duplicate_documents`.
        cleaning: the rules.
        out: an existing folder.

    Returns:
        num_read = num_documents + num_removed, num_characters (of what stays), removed_by_reason; a warning where ids are not unique.
    """
    duplicates = {row["document_id"]: (row["duplicate_of"], row["kind"]) for row in pl.read_parquet(removal_list).iter_rows(named=True)}
    characters = 0
    reasons: Counter[str] = Counter()
    with TableWriter(out, "data", DOCUMENTS) as kept, TableWriter(out, "removed.parquet", _REMOVED) as removed:
        for row in read_rows(tables, DOCUMENTS.names):
            reason = _reason(row["document_id"], len(row["text"]), duplicates, cleaning)
            if reason is None:
                characters += len(row["text"])
                kept.write(row)
            else:
                reasons[reason.split(":")[0]] += 1
                removed.write({"document_id": row["document_id"], "reason": reason})
    return {
        "num_read": kept.num_rows + removed.num_rows,
        "num_documents": kept.num_rows,
        "num_removed": removed.num_rows,
        "num_characters": characters,
        "removed_by_reason": dict(sorted(reasons.items())),
        **warning_of_ids(reasons[_SAME_ID]),
    }


def _reason(document_id: str, characters: int, duplicates: dict[str, tuple[str, str]], cleaning: Cleaning) -> str | None:
    if document_id in duplicates:
        other, kind = duplicates[document_id]
        return f"{_SAME_ID}: ids must be unique in a corpus" if kind == "same_id" else f"duplicate: of '{other}'"
    if characters < cleaning.min_characters:
        return f"too short: {characters} characters"
    if cleaning.max_characters is not None and characters > cleaning.max_characters:
        return f"too long: {characters} characters"
    return None
