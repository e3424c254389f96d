"""Tokenized instructions: components, response spans, held-out examples, rejected records."""

import gzip
import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from instpt_assets.mixture.arrays import TokenizedRows
from instpt_assets.mixture.instructions import tokenize_instructions
from instpt_assets.mixture.tokenizer import load_encoder
from instpt_assets.recipe.recipe import GeneralInstructions
from instpt_assets.recipe.synthesis import Layouts

PAIR: dict[str, Any] = {"instruction": "What is returned?", "response": "数組 a copy", "options": [], "reasoning": None}
CHOICE = {"instruction": "Which one?", "response": "b", "options": ["a", "b"], "reasoning": "It says b."}


@pytest.fixture
def collection(tmp_path: Path) -> Path:
    path = tmp_path / "data-00000.parquet"
    rows: list[dict[str, Any]] = [
        {"example_id": "set/0", "split": "train", "context": "The array </s> returns a copy.\n", "pairs": [PAIR, CHOICE]},
        {"example_id": "set/1", "split": "held_out", "context": "Secret.", "pairs": [PAIR]},
    ]
    pl.DataFrame([{**row, "dataset": "set", "license": "MIT"} for row in rows]).write_parquet(path)
    return path


@pytest.fixture
def general(tmp_path: Path) -> GeneralInstructions:
    lines = [
        json.dumps({"instruction": " Say 42. ", "response": "42"}),
        "{broken",
        json.dumps({"instruction": "Empty?", "response": " "}),
        json.dumps({"response": "no question"}),
        json.dumps({"instruction": "Add.", "reasoning": "1+1=2.", "response": "2"}),
        json.dumps({"instruction": "Beyond max_examples", "response": "no"}),
    ]
    path = tmp_path / "general.jsonl.gz"
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    return GeneralInstructions(source=str(path), max_examples=2)


def read(folder: Path, tokenizer: Path) -> list[dict[str, Any]]:
    decode = load_encoder(tokenizer).tokenizer.decode
    rows = TokenizedRows(folder)
    spans = np.load(folder / "response_spans.npy")
    table = pl.read_parquet(folder / "data-00000.parquet").to_dicts()
    assert len(rows) == len(spans) == len(table)
    for index, row in enumerate(table):
        ids = rows.row(index).tolist()
        assert ids[-1] == 2
        assert 2 not in ids[:-1]
        begin, end = spans[index]
        row |= {"text": decode(ids[:-1]), "response": decode(ids[begin:end]), "span": (begin, end), "length": len(ids)}
    return table


def test_pairs_and_general_instructions_are_single_texts_whose_spans_decode_to_the_response(
    collection: Path, general: GeneralInstructions, tokenizer: Path, tmp_path: Path
) -> None:
    tokenize_instructions(collection_tables=[collection], general=general, tokenizer=tokenizer, layouts=Layouts(), out=tmp_path / "out")
    rows = {row["row_id"]: row for row in read(tmp_path / "out", tokenizer) if row["component"] != "tuning"}
    assert {key: (row["component"], row["text"]) for key, row in rows.items()} == {
        "set/0/000": ("tuning_pairs", "The array </s> returns a copy.\n\nWhat is returned? 数組 a copy"),
        "set/0/001": (
            "tuning_pairs",
            "The array </s> returns a copy.\n\n"
            "Which one?\nOptions:\n- a\n- b\nLet's think step by step. It says b.\nTherefore, the answer is b",
        ),
        "general/general/000000000": ("general", "Say 42. 42"),
        "general/general/000000004": ("general", "Add.\nLet's think step by step. 1+1=2.\nTherefore, the answer is 2"),
    }
    assert {key: row["response"] for key, row in rows.items()} == {
        "set/0/000": " 数組 a copy",
        "set/0/001": " It says b.\nTherefore, the answer is b",
        "general/general/000000000": " 42",
        "general/general/000000004": " 1+1=2.\nTherefore, the answer is 2",
    }
    assert all(row["span"][1] == row["length"] - 1 for row in rows.values())


def test_tuning_rows_are_laid_out_texts_without_a_span_and_without_held_out_examples(
    collection: Path, tokenizer: Path, tmp_path: Path
) -> None:
    statistics = tokenize_instructions(
        collection_tables=[collection], general=None, tokenizer=tokenizer, layouts=Layouts(), out=tmp_path / "out"
    )
    rows = read(tmp_path / "out", tokenizer)
    (tuning,) = [row for row in rows if row["component"] == "tuning"]
    assert tuning["row_id"] == "set/0"
    assert "The array </s> returns a copy." in tuning["text"]
    assert "数組 a copy" in tuning["text"]
    assert tuning["span"] == (0, 0)
    assert not any("Secret" in row["text"] or row["row_id"].startswith("set/1") for row in rows)
    assert statistics["components"]["tuning_pairs"]["num_rows"] == 2
    assert (
        statistics["num_tokens"] == sum(part["num_tokens"] for part in statistics["components"].values()) == sum(r["length"] for r in rows)
    )


def test_spans_hold_for_a_tokenizer_that_writes_spaces_as_its_own_character(general: GeneralInstructions, tmp_path: Path) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    model = Tokenizer(models.BPE(byte_fallback=True))
    model.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    model.decoder = decoders.Metaspace(prepend_scheme="first")
    texts = ["Say 42. 42", "Add.\nLet's think step by step. 1+1=2.\nTherefore, the answer is 2"] * 5
    model.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=60, special_tokens=["<unk>", "<s>", "</s>"], show_progress=False))
    folder = tmp_path / "metaspace"
    folder.mkdir()
    model.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "</s>"}))
    tokenize_instructions(collection_tables=[], general=general, tokenizer=folder, layouts=Layouts(), out=tmp_path / "out")
    assert [row["response"].strip() for row in read(tmp_path / "out", folder)] == ["42", "1+1=2.\nTherefore, the answer is 2"]


def test_unusable_general_records_are_kept_with_reason_and_position(general: GeneralInstructions, tokenizer: Path, tmp_path: Path) -> None:
    statistics = tokenize_instructions(collection_tables=[], general=general, tokenizer=tokenizer, layouts=Layouts(), out=tmp_path / "out")
    rejected = pl.read_parquet(tmp_path / "out/rejected.parquet")
    assert rejected["position"].to_list() == [1, 2, 3]
    assert [reason.split(":")[0] for reason in rejected["reason"]] == ["broken JSON", "empty text", "no text in instruction"]
    assert statistics["num_rejected"] == 3
    assert statistics["num_rows"] == 2


def test_no_example_at_all_is_an_error(tokenizer: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="hold an example"):
        tokenize_instructions(collection_tables=[], general=None, tokenizer=tokenizer, layouts=Layouts(), out=tmp_path / "out")


def test_instruction_rows_are_the_ones_recorded(
    collection: Path, general: GeneralInstructions, tokenizer: Path, tmp_path: Path, golden: Callable[[str, object], None]
) -> None:
    tokenize_instructions(collection_tables=[collection], general=general, tokenizer=tokenizer, layouts=Layouts(), out=tmp_path / "out")
    rows = TokenizedRows(tmp_path / "out")
    spans = np.load(tmp_path / "out/response_spans.npy")
    ids = np.concatenate([rows.row(index) for index in range(1, len(rows))])
    golden("instruction_rows", sha256(ids.tobytes() + spans.tobytes()).hexdigest()[:16])
