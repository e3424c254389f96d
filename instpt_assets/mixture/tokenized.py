"""Tables of texts become tokenized rows: raw documents and augmented texts, a row each."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

from instpt_assets.mixture.tokenizer import BATCH_CHARACTERS, load_encoder

if TYPE_CHECKING:
    import pyarrow as pa


def tokenize_table(
    tables: Sequence[Path],
    *,
    tokenizer: Path,
    id_column: str,
    documents_column: str,
    documents: Callable[["pa.Array"], "pa.Array"],
    out: Path,
) -> dict[str, Any]:
    """Encode the column `text` of Parquet tables, a row each, ended by EOS (layout of the files: `mixture.arrays`).

    Args:
        tables: parts of one table, in order; read as a stream.
        tokenizer: a Hugging Face folder; special tokens in the text stay text.
        id_column: names the rows.
        documents_column: what `documents` turns into the ids of the rows' documents.
        documents: of some rows' values, a list of document ids for each.
        out: the artifact's folder.

    Returns:
        Statistics: num_rows, num_tokens (EOS included), num_text_tokens (without), median_row_tokens, longest_row_tokens, num_bytes (UTF-8),
        bytes_per_token (of text), vocab_size, dtype, seconds, tokens_per_second.
    """
    import pyarrow.compute as pc

    from instpt_assets.mixture.arrays import RowWriter, TokenizedRows, token_dtype
    from instpt_assets.mixture.token_preview import preview_rows, row_statistics

    started = monotonic()
    encoder = load_encoder(tokenizer)
    with RowWriter(out, vocab_size=encoder.vocab_size, eos_id=encoder.eos_id) as writer:
        batches = _batches(tables, list(dict.fromkeys([id_column, documents_column, "text"])))
        for batch, (flat, num_tokens) in encoder.encoded(
            batches, lambda batch: batch["text"].to_pylist(), lambda encodings: writer.flatten(encoding.ids for encoding in encodings)
        ):
            columns = {"row_id": batch[id_column], "document_ids": documents(batch[documents_column])}
            writer.append(flat, num_tokens, {**columns, "num_bytes": pc.binary_length(batch["text"])})
    seconds = monotonic() - started
    rows = TokenizedRows(out)
    preview_rows(out, encoder, rows)
    return {
        "num_rows": writer.num_rows,
        "num_tokens": writer.num_tokens,
        **row_statistics(rows),
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
        clean_tables, tokenizer=tokenizer, id_column="document_id", documents_column="document_id", documents=_each_alone, out=out
    )


def tokenize_augmented(augmented_tables: Sequence[Path], *, tokenizer: Path, out: Path) -> dict[str, Any]:
    """Tokenize the texts of a shard of `augmented_corpus`: a row is a chain, possibly of several documents. See `tokenize_table`."""
    return tokenize_table(
        augmented_tables,
        tokenizer=tokenizer,
        id_column="text_id",
        documents_column="passage_ids",
        documents=_documents_of_chains,
        out=out,
    )


def documents_of_passages(passage_ids: Sequence[str]) -> list[str]:
    """The distinct documents of passages (`<document_id>/<position>`), in order."""
    return list(dict.fromkeys(passage_id.rpartition("/")[0] for passage_id in passage_ids))


def _each_alone(document_ids: "pa.Array") -> "pa.Array":
    import pyarrow as pa

    ids = document_ids.cast(pa.string())
    return pa.ListArray.from_arrays(pa.array(range(len(ids) + 1), type=pa.int32()), ids)


def _documents_of_chains(passage_ids: "pa.Array") -> "pa.Array":
    import pyarrow as pa

    return pa.array([documents_of_passages(passages) for passages in passage_ids.to_pylist()], type=pa.list_(pa.string()))


def _batches(tables: Sequence[Path], columns: Sequence[str]) -> "Iterator[pa.RecordBatch]":
    """Rows with texts of about `BATCH_CHARACTERS` bytes together; a longer text stands alone or ends a batch."""
    import numpy as np
    import pyarrow.compute as pc

    from instpt_assets.corpus.tables import read_batches

    for rows in read_batches(tables, columns):
        begun = np.cumsum(pc.binary_length(rows["text"]).to_numpy(zero_copy_only=False)) // BATCH_CHARACTERS
        begins = np.flatnonzero(np.diff(begun, prepend=-1))
        for begin, end in zip(begins, [*begins[1:], len(rows)], strict=True):
            yield rows.slice(begin, end - begin)
