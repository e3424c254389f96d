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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from time import monotonic
from typing import Any

from instpt_assets.mixture.tokenizer import load_encoder
from instpt_assets.recipe.recipe import GeneralInstructions
from instpt_assets.recipe.synthesis import Layouts

RESPONSE_SPANS = "response_spans.npy"
TUNING, TUNING_PAIRS, GENERAL = "tuning", "tuning_pairs", "general"


@dataclass(frozen=True)
class _Example:
    component: str
    row_id: str
    prompt: str | None
    """What stands before the response; None if the row has no single response."""
    text: str


def tokenize_instructions(
    *, collection_tables: Sequence[Path], general: GeneralInstructions | None, tokenizer: Path, layouts: Layouts, out: Path
) -> dict[str, Any]:
    """Tokenize the tuning collection (train split) and the general instructions (files: module docstring and `mixture.arrays`).

    Records of the general instructions that cannot be used lie in `rejected.parquet` (record, reason, position).

    Args:
        collection_tables: parts of `tuning_collection`; may be empty.
        general: JSON Lines (plain, .gz, .zst; any URL that fsspec reads) with instruction, response and, optionally, reasoning.
        tokenizer: a Hugging Face folder; special tokens in the text stay text.
        layouts: of the `tuning` rows.
        out: the artifact's folder.

    Returns:
        Statistics: num_rows, num_tokens, num_rejected, components (num_rows, num_tokens, num_response_tokens of each), seconds.

    Raises:
        ValueError: there is no example at all.
    """
    import numpy as np
    import polars as pl
    import pyarrow as pa

    from instpt_assets.mixture.arrays import ArrayWriter, Row, RowWriter

    started = monotonic()
    encoder = load_encoder(tokenizer)
    rejected: list[dict[str, Any]] = []
    examples = chain(
        (example for table in collection_tables for example in _tuning(table, layouts)),
        (example for table in collection_tables for example in _tuning_pairs(table)),
        _general(general, rejected) if general is not None else (),
    )
    columns = ("num_rows", "num_tokens", "num_response_tokens")
    components = {name: dict.fromkeys(columns, 0) for name in (TUNING, TUNING_PAIRS, GENERAL)}
    with RowWriter(
        out, vocab_size=encoder.vocab_size, eos_id=encoder.eos_id, columns=[pa.field("component", pa.string())]
    ) as writer:
        spans = ArrayWriter(out / RESPONSE_SPANS, np.int64, width=2)
        for batch in encoder.batches(examples, lambda example: example.text, offsets=True):
            for example, encoding in batch:
                span = (0, 0) if example.prompt is None else _response_span(encoding.offsets, len(example.prompt))
                size = len(example.text.encode())
                writer.append(Row(example.row_id, (), encoding.ids, size, extra=(example.component,)))
                spans.append([span])
                for name, count in zip(columns, (1, len(encoding.ids) + 1, span[1] - span[0]), strict=True):
                    components[example.component][name] += count
        spans.close()
    if not writer.num_rows:
        raise ValueError("neither the tuning collection nor the general instructions hold an example")
    schema = {"record": pl.String, "reason": pl.String, "position": pl.Int64}
    pl.DataFrame(rejected, schema=schema).write_parquet(out / "rejected.parquet", compression="zstd")
    return {
        "num_rows": writer.num_rows,
        "num_tokens": writer.num_tokens,
        "num_rejected": len(rejected),
        "components": components,
        "seconds": monotonic() - started,
    }


def _tuning(table: Path, layouts: Layouts) -> Iterator[_Example]:
    from instpt_assets.augmentation.tuning_texts import lay_out_tuning

    for example_id, text in lay_out_tuning(table, layouts, split="train"):
        yield _Example(TUNING, example_id, None, text)


def _tuning_pairs(table: Path) -> Iterator[_Example]:
    import pyarrow.parquet as pq

    from instpt_assets.synthesis.prompt import answer_text, question_text

    with pq.ParquetFile(table) as file:
        for batch in file.iter_batches(batch_size=256, columns=["example_id", "split", "context", "pairs"]):
            for row in batch.to_pylist():
                if row["split"] != "train":
                    continue
                for index, pair in enumerate(row["pairs"]):
                    question = question_text(pair["instruction"], pair["options"] or (), pair["reasoning"])
                    prompt = f"{row['context'].strip()}\n\n{question.strip()}"
                    answer = answer_text(pair["response"], pair["reasoning"]).strip()
                    yield _Example(TUNING_PAIRS, f"{row['example_id']}/{index:03d}", prompt, f"{prompt} {answer}")


def _general(general: GeneralInstructions, rejected: list[dict[str, Any]]) -> Iterator[_Example]:
    import fsspec

    from instpt_assets.synthesis.prompt import answer_text, question_text

    def read(lines: Iterable[bytes]) -> Iterator[_Example]:
        for position, line in enumerate(lines):
            record = _record(line)
            if isinstance(record, str):
                rejected.append({"record": line.decode(errors="replace"), "reason": record, "position": position})
                continue
            reasoning = record.get("reasoning")
            prompt = question_text(record["instruction"].strip(), reasoning=reasoning)
            answer = answer_text(record["response"], reasoning).strip()
            yield _Example(GENERAL, f"{GENERAL}/{position:09d}", prompt, f"{prompt} {answer}")

    with fsspec.open(general.source, "rb", compression="infer") as file:
        yield from islice(read(file), general.max_examples)


def _record(line: bytes) -> Mapping[str, Any] | str:
    """The record of a line, or why it cannot be used."""
    try:
        record = json.loads(line)
    except UnicodeDecodeError:
        return "no UTF-8"
    except ValueError:
        return "no JSON"
    if not isinstance(record, dict):
        return "no JSON object"
    for name in ("instruction", "response"):
        if not isinstance(record.get(name), str) or not record[name].strip():
            return f"no text in {name}"
    if not isinstance(record.get("reasoning"), str | None):
        return "reasoning is no text"
    return record


def _response_span(offsets: Sequence[tuple[int, int]], prompt_characters: int) -> tuple[int, int]:
    """Tokens that reach behind the prompt: the question and its response are encoded as one text, as a reader of the text would."""
    return bisect_right(offsets, prompt_characters, key=lambda offset: offset[1]), len(offsets)
