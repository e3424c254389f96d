"""Tables of texts become tokenized rows: raw documents and augmented texts, a row each."""

from collections.abc import Callable, Sequence
from pathlib import Path
from time import monotonic
from typing import Any

from instpt_assets.mixture.tokenizer import load_encoder


def tokenize_table(
    tables: Sequence[Path],
    *,
    tokenizer: Path,
    id_column: str,
    documents_column: str,
    documents: Callable[[Any], list[str]],
    out: Path,
) -> dict[str, Any]:
    """Encode the column `text` of Parquet tables, a row each, ended by EOS (layout of the files: `mixture.arrays`).

    Args:
        tables: parts of one table, in order; read as a stream.
        tokenizer: a Hugging Face folder; special tokens in the text stay text.
        id_column: names the rows.
        documents_column: what `documents` turns into the ids of a row's documents.
        documents: see there.
        out: the artifact's folder.

    Returns:
        Statistics: num_rows, num_tokens (EOS included), num_bytes (UTF-8), bytes_per_token, vocab_size, dtype, seconds, tokens_per_second.
    """
    from instpt_assets.corpus.tables import read_rows
    from instpt_assets.mixture.arrays import Row, RowWriter, token_dtype

    started = monotonic()
    encoder = load_encoder(tokenizer)
    with RowWriter(out, vocab_size=encoder.vocab_size, eos_id=encoder.eos_id) as writer:
        rows = read_rows(tables, list(dict.fromkeys([id_column, documents_column, "text"])))
        for batch in encoder.batches(rows, lambda row: row["text"]):
            for row, encoding in batch:
                num_bytes = len(row["text"].encode())
                writer.append(Row(row[id_column], documents(row[documents_column]), encoding.ids, num_bytes))
    seconds = monotonic() - started
    return {
        "num_rows": writer.num_rows,
        "num_tokens": writer.num_tokens,
        "num_bytes": writer.num_bytes,
        "bytes_per_token": writer.num_bytes / max(1, writer.num_tokens - writer.num_rows),
        "vocab_size": encoder.vocab_size,
        "dtype": token_dtype(encoder.vocab_size).name,
        "seconds": seconds,
        "tokens_per_second": writer.num_tokens / max(seconds, 1e-9),
    }


def tokenize_raw(clean_tables: Sequence[Path], *, tokenizer: Path, out: Path) -> dict[str, Any]:
    """Tokenize the documents of a shard of `clean_corpus`: a row is a document. See `tokenize_table`."""
    return tokenize_table(
        clean_tables,
        tokenizer=tokenizer,
        id_column="document_id",
        documents_column="document_id",
        documents=lambda document_id: [document_id],
        out=out,
    )


def tokenize_augmented(augmented_tables: Sequence[Path], *, tokenizer: Path, out: Path) -> dict[str, Any]:
    """Tokenize the texts of a shard of `augmented_corpus`: a row is a chain, possibly of several documents. See `tokenize_table`."""
    return tokenize_table(
        augmented_tables,
        tokenizer=tokenizer,
        id_column="text_id",
        documents_column="passage_ids",
        documents=documents_of_passages,
        out=out,
    )


def documents_of_passages(passage_ids: Sequence[str]) -> list[str]:
    """The distinct documents of passages (`<document_id>/<position>`), in order."""
    return list(dict.fromkeys(passage_id.rpartition("/")[0] for passage_id in passage_ids))
