"""Tokenized tables: every text comes back, rows are named, files are memory-mappable and deterministic."""

import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from tokenizers import Tokenizer, models

from instpt_assets.mixture import arrays, tokenized
from instpt_assets.mixture.arrays import ArrayWriter, RowWriter, TokenizedRows, token_dtype
from instpt_assets.mixture.tokenized import tokenize_augmented, tokenize_raw
from instpt_assets.mixture.tokenizer import load_encoder
from instpt_assets.store.preview import write_preview

TEXTS = ["The array returns a copy.", "", "ends in </s> and <s> <pad>", "Grüße 数組 \x00\n\n\n  axis", "x" * 5000]


@pytest.fixture
def tables(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / "data-00000.parquet", tmp_path / "data-00001.parquet"]
    for path, begin, end in zip(paths, (0, 3), (3, 5), strict=True):
        pl.DataFrame({"document_id": [f"c--0/{i}" for i in range(begin, end)], "text": TEXTS[begin:end]}).write_parquet(path)
    return paths


def test_every_document_is_a_row_that_decodes_to_its_text_and_ends_in_one_eos(tables: list[Path], tokenizer: Path, tmp_path: Path) -> None:
    statistics = tokenize_raw(tables, tokenizer=tokenizer, out=tmp_path / "out")
    rows = TokenizedRows(tmp_path / "out")
    decode = load_encoder(tokenizer).tokenizer.decode
    assert len(rows) == len(TEXTS) == statistics["num_rows"]
    for index, text in enumerate(TEXTS):
        ids = rows.row(index).tolist()
        assert ids[-1] == 2
        assert not {0, 1, 2} & set(ids[:-1])
        assert decode(ids[:-1]) == text
    table = pl.read_parquet(tmp_path / "out/data-00000.parquet")
    assert table["row_id"].to_list() == [f"c--0/{i}" for i in range(5)]
    assert table["document_ids"].to_list() == [[f"c--0/{i}"] for i in range(5)]
    assert table["num_tokens"].to_list() == rows.num_tokens().tolist()
    assert table["num_bytes"].to_list() == [len(text.encode()) for text in TEXTS]
    assert statistics["num_tokens"] == len(rows.tokens) == table["num_tokens"].sum()
    assert statistics["num_bytes"] == table["num_bytes"].sum()


def test_arrays_are_memory_mapped_with_the_vocabularys_type(tables: list[Path], tokenizer: Path, tmp_path: Path) -> None:
    tokenize_raw(tables, tokenizer=tokenizer, out=tmp_path / "out")
    rows = TokenizedRows(tmp_path / "out")
    assert isinstance(rows.tokens.base, np.memmap)
    assert rows.tokens.dtype == np.uint16
    assert rows.offsets.dtype == np.int64
    assert (token_dtype(65_536), token_dtype(65_537)) == (np.dtype(np.uint16), np.dtype(np.uint32))


def test_a_large_vocabulary_is_stored_in_32_bits(tables: list[Path], tokenizer: Path, tmp_path: Path) -> None:
    large = tmp_path / "large"
    large.mkdir()
    model = json.loads((tokenizer / "tokenizer.json").read_text())
    model["added_tokens"].append({**model["added_tokens"][0], "id": 70_000, "content": "<far>"})
    model["model"]["vocab"]["<far>"] = 70_000
    (large / "tokenizer.json").write_text(json.dumps(model))
    (large / "tokenizer_config.json").write_text(json.dumps({"eos_token": {"content": "<far>"}}))
    statistics = tokenize_raw(tables, tokenizer=large, out=tmp_path / "out")
    rows = TokenizedRows(tmp_path / "out")
    assert statistics["dtype"] == rows.tokens.dtype.name == "uint32"
    assert rows.row(0)[-1] == 70_000


def test_an_augmented_row_names_its_distinct_documents_in_order(tokenizer: Path, tmp_path: Path) -> None:
    passages = [["c--0/a/b/0000", "c--0/a/b/0001", "c--0/z/0000"], ["c--0/z/0001"]]
    pl.DataFrame({"text_id": ["t0", "t1"], "text": ["one", "two"], "passage_ids": passages}).write_parquet(tmp_path / "data-00000.parquet")
    tokenize_augmented([tmp_path / "data-00000.parquet"], tokenizer=tokenizer, out=tmp_path / "out")
    table = pl.read_parquet(tmp_path / "out/data-00000.parquet")
    assert table["row_id"].to_list() == ["t0", "t1"]
    assert table["document_ids"].to_list() == [["c--0/a/b", "c--0/z"], ["c--0/z"]]


def test_statistics_add_up_and_the_preview_shows_the_longest_rows_and_the_first_tokens(
    tables: list[Path], tokenizer: Path, tmp_path: Path
) -> None:
    statistics = tokenize_raw(tables, tokenizer=tokenizer, out=tmp_path / "out")
    tokens = TokenizedRows(tmp_path / "out").num_tokens()
    assert statistics["num_text_tokens"] + statistics["num_rows"] == statistics["num_tokens"]
    assert (statistics["longest_row_tokens"], statistics["median_row_tokens"]) == (tokens.max(), sorted(tokens)[2])
    assert statistics["bytes_per_token"] == pytest.approx(statistics["num_bytes"] / statistics["num_text_tokens"])
    preview = (tmp_path / "out/logs/preview.md").read_text()
    assert f"**{statistics['num_tokens']:,} tokens** in 5 rows" in preview
    assert f"c--0/4 | {tokens.max():,} | 5,000 |" in preview
    assert '" returns" | " a" | " copy" | "." | "&#60;/s&#62;" |' in preview.replace("\N{NO-BREAK SPACE}", " ")
    write_preview(tmp_path / "out")
    assert (tmp_path / "out/logs/preview.md").read_text() == preview, "the general preview of a table does not replace it"


def test_batches_change_no_byte(tables: list[Path], tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays, "_ROWS_A_GROUP", 3)
    tokenize_raw(tables, tokenizer=tokenizer, out=tmp_path / "a")
    monkeypatch.setattr(tokenized, "BATCH_CHARACTERS", 1)
    tokenize_raw(tables, tokenizer=tokenizer, out=tmp_path / "b")
    for name in ("tokens.npy", "offsets.npy", "data-00000.parquet"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_shard_without_documents_gives_empty_arrays(tokenizer: Path, tmp_path: Path) -> None:
    empty = pl.DataFrame(schema={"document_id": pl.String, "text": pl.String})
    empty.write_parquet(tmp_path / "data-00000.parquet")
    statistics = tokenize_raw([tmp_path / "data-00000.parquet"], tokenizer=tokenizer, out=tmp_path / "out")
    assert statistics["num_rows"] == statistics["num_tokens"] == len(TokenizedRows(tmp_path / "out")) == 0
    assert pl.read_parquet(tmp_path / "out/data-00000.parquet").height == 0
    assert (tmp_path / "out/logs/preview.md").read_text() == "no rows"


def test_a_tokenizer_that_makes_eos_out_of_text_is_refused(tmp_path: Path) -> None:
    pieces = [("<unk>", 0.0), ("</s>", 0.0), *((letter, -2.0) for letter in "abc </s>")]
    unigram = Tokenizer(models.Unigram(pieces, unk_id=0, byte_fallback=False))
    (tmp_path / "unigram").mkdir()
    unigram.save(str(tmp_path / "unigram/tokenizer.json"))
    (tmp_path / "unigram/tokenizer_config.json").write_text(json.dumps({"eos_token": "</s>"}))
    pl.DataFrame({"document_id": ["c/0", "c/1"], "text": ["ab c", "a</s>b"]}).write_parquet(tmp_path / "data-00000.parquet")
    with pytest.raises(ValueError, match=r"text of row c/1 holds the EOS token \(1\)"):
        tokenize_raw([tmp_path / "data-00000.parquet"], tokenizer=tmp_path / "unigram", out=tmp_path / "out")


def test_an_id_that_the_type_cannot_hold_is_no_other_id(tmp_path: Path) -> None:
    with RowWriter(tmp_path, vocab_size=1000, eos_id=0) as writer, pytest.raises(OverflowError):
        writer.flatten([[65_536]])


def test_an_array_written_in_pieces_is_the_array(tmp_path: Path) -> None:
    writer = ArrayWriter(tmp_path / "a.npy", np.int64)
    for piece in ([1, 2], [], range(100_000)):
        writer.append(piece)
    writer.close()
    assert np.array_equal(np.load(tmp_path / "a.npy"), [1, 2, *range(100_000)])


def test_tokenizer_and_ids_are_the_ones_recorded(
    tables: list[Path], tokenizer: Path, tmp_path: Path, golden: Callable[[str, object], None]
) -> None:
    tokenize_raw(tables, tokenizer=tokenizer, out=tmp_path / "out")
    for name, folder, files in (
        ("tokenizer", tokenizer, ("tokenizer.json", "tokenizer_config.json")),
        ("tokens", tmp_path / "out", ("tokens.npy", "offsets.npy")),
    ):
        golden(name, {file: sha256((folder / file).read_bytes()).hexdigest()[:16] for file in files})
