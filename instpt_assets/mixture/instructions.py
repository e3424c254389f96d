"""Instructions become tokenized rows: tuning data for mixtures, single examples for instruction tuning, general instructions.

One artifact holds three components, told apart by the table's column `component`:

- `tuning`: a tuning context with its pairs, laid out as augmented texts are; for mixtures.
- `tuning_pairs`: one pair a row, `{context}\\n\\n{question} {response}`; for instruction tuning.
- `general`: one general instruction a row, `{question} {response}` with one space and no chat template (PAPER.md section 5); for both.

`response_spans.npy` (int64, rows x 2) gives the tokens of each row's response, counted from the row's begin, its EOS not included;
0, 0 where a row has no single response (`tuning`). Examples held out of the tuning collection are in no row.
"""

import json
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from itertools import chain, islice
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from instpt_assets.augmentation.tuning_texts import lay_out_tuning
from instpt_assets.corpus.normalizing import normalize, replace_surrogates
from instpt_assets.corpus.records import MAX_REJECTED_CHARACTERS, Record, Rejection, read_records
from instpt_assets.corpus.shards import list_shards
from instpt_assets.corpus.tables import TableWriter, read_rows
from instpt_assets.mixture.arrays import ArrayWriter, RowWriter, TokenizedRows
from instpt_assets.mixture.token_preview import preview_rows, row_statistics
from instpt_assets.mixture.tokenizer import BATCH_CHARACTERS, load_encoder
from instpt_assets.recipe.corpora import Corpus
from instpt_assets.recipe.recipe import GeneralInstructions
from instpt_assets.recipe.synthesis import Layouts
from instpt_assets.synthesis.prompt import Pair, answer_text, question_text

if TYPE_CHECKING:
    from tokenizers import Encoding

RESPONSE_SPANS = "response_spans.npy"
TUNING, TUNING_PAIRS, GENERAL = "tuning", "tuning_pairs", "general"
_REJECTED = pa.schema([("record", pa.string()), ("reason", pa.string()), ("position", pa.int64())])


@dataclass(frozen=True)
class _Example:
    component: str
    row_id: str
    prompt: str | None
    """What stands before the response; None if the row has no single response."""
    text: str


def tokenize_instructions(
    *,
    collection_tables: Sequence[Path],
    general: GeneralInstructions | None,
    tokenizer: Path,
    layouts: Layouts,
    out: Path,
) -> dict[str, Any]:
    """Tokenize the tuning collection (train split) and the general instructions (files: module docstring and `mixture.arrays`).

    Records of the general instructions that cannot be used lie in `rejected.parquet` (record, reason, position).

    Args:
        collection_tables: parts of `tuning_collection`; may be empty.
        general: where they lie (records with instruction, response and, optionally, reasoning, read as a corpus is) and how many to take.
        tokenizer: a Hugging Face folder; special tokens in the text stay text.
        layouts: of the `tuning` rows.
        out: the artifact's folder.

    Returns:
        Statistics: num_rows, num_tokens, num_text_tokens, median_row_tokens, longest_row_tokens, num_bytes and bytes_per_token (as of
        `tokenize_table`), num_rejected, components (num_rows, num_tokens, num_response_tokens of each), seconds.

    Raises:
        ValueError: there is no example at all, or the source of the general instructions cannot be read.
    """
    started = monotonic()
    encoder = load_encoder(tokenizer)
    columns = ("num_rows", "num_tokens", "num_response_tokens")
    components = {name: dict.fromkeys(columns, 0) for name in (TUNING, TUNING_PAIRS, GENERAL)}
    out.mkdir(parents=True, exist_ok=True)
    with (
        RowWriter(out, vocab_size=encoder.vocab_size, eos_id=encoder.eos_id, columns=[pa.field("component", pa.string())]) as writer,
        closing(ArrayWriter(out / RESPONSE_SPANS, np.int64, width=2)) as spans,
        TableWriter(out, "rejected.parquet", _REJECTED) as rejected,
    ):
        examples = chain(
            (example for table in collection_tables for example in _tuning(table, layouts)),
            (example for table in collection_tables for example in _tuning_pairs(table)),
            islice(_general(general, rejected), general.max_examples) if general is not None else (),
        )
        for batch, encodings in encoder.encoded(_batches(examples), lambda batch: [each.text for each in batch], list, offsets=True):
            found = [_response_span(encoding, example.prompt) for example, encoding in zip(batch, encodings, strict=True)]
            flat, num_tokens = writer.flatten(encoding.ids for encoding in encodings)
            rows = {
                "row_id": [example.row_id for example in batch],
                "document_ids": [[]] * len(batch),
                "num_bytes": [len(example.text.encode()) for example in batch],
                "component": [example.component for example in batch],
            }
            writer.append(flat, num_tokens, rows)
            spans.append(found)
            for example, count, (begin, end) in zip(batch, num_tokens.tolist(), found, strict=True):
                for name, number in zip(columns, (1, count, end - begin), strict=True):
                    components[example.component][name] += number
    if not writer.num_rows:
        raise ValueError("neither the tuning collection nor the general instructions hold an example")
    tokens = TokenizedRows(out)
    preview_rows(out, encoder, tokens)
    return {
        "num_rows": writer.num_rows,
        "num_tokens": writer.num_tokens,
        **row_statistics(tokens),
        "num_bytes": writer.num_bytes,
        "bytes_per_token": writer.num_bytes / max(1, writer.num_tokens - writer.num_rows),
        "num_rejected": rejected.num_rows,
        "components": components,
        "seconds": monotonic() - started,
    }


def _tuning(table: Path, layouts: Layouts) -> Iterator[_Example]:
    for example_id, text in lay_out_tuning(table, layouts, split="train"):
        yield _Example(TUNING, example_id, None, text)


def _tuning_pairs(table: Path) -> Iterator[_Example]:
    for row in read_rows([table], ["example_id", "split", "context", "pairs"]):
        if row["split"] == "train":
            for index, pair in enumerate(map(Pair.from_struct, row["pairs"])):
                prompt = f"{row['context'].strip()}\n\n{question_text(pair.instruction, pair.options, pair.reasoning).strip()}"
                yield _Example(
                    component=TUNING_PAIRS,
                    row_id=f"{row['example_id']}/{index:03d}",
                    prompt=prompt,
                    text=f"{prompt} {answer_text(pair.response, pair.reasoning).strip()}",
                )


def _general(general: GeneralInstructions, rejected: TableWriter) -> Iterator[_Example]:
    corpus = Corpus(source=general.source, text_field="response")
    for shard in list_shards(GENERAL, corpus):
        for item in read_records(shard, corpus):
            example = _general_example(item, shard.slug) if isinstance(item, Record) else item
            if isinstance(example, _Example):
                yield example
            else:
                rejected.write(asdict(example))


def _general_example(record: Record, slug: str) -> _Example | Rejection:
    given = {"instruction": record.fields.get("instruction"), "response": record.text, "reasoning": record.fields.get("reasoning") or ""}
    texts = {name: normalize(value).strip() for name, value in given.items() if isinstance(value, str)}
    lacking = [name for name in ("instruction", "response") if not texts.get(name)] + [name for name in given if name not in texts]
    if lacking:
        shown = json.dumps({"response": record.text, **record.fields}, ensure_ascii=False)
        return Rejection(replace_surrogates(shown[:MAX_REJECTED_CHARACTERS]), f"no text in {lacking[0]}", record.position)
    prompt = question_text(texts["instruction"], reasoning=texts["reasoning"])
    return _Example(
        component=GENERAL,
        row_id=f"{GENERAL}/{slug}/{record.position:09d}",
        prompt=prompt,
        text=f"{prompt} {answer_text(texts['response'], texts['reasoning'])}",
    )


def _batches(examples: Iterable[_Example]) -> Iterator[list[_Example]]:
    batch: list[_Example] = []
    held = 0
    for example in examples:
        batch.append(example)
        held += len(example.text)
        if held >= BATCH_CHARACTERS:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch


def _response_span(encoding: "Encoding", prompt: str | None) -> tuple[int, int]:
    """Tokens that reach behind the prompt: the question and its response are encoded as one text, as a reader of the text would."""
    if prompt is None:
        return 0, 0
    offsets = encoding.offsets
    return bisect_right(offsets, len(prompt), key=lambda offset: offset[1]), len(offsets)
