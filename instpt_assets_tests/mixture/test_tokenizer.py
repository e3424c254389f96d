"""The tokenizer's folder: what transformers makes of it, determinism, special tokens in text."""

import json
import random
from pathlib import Path

import polars as pl
import pytest

from instpt_assets.mixture.tokenizer import add_markers, copy_tokenizer, load_encoder, make_tokenizer, train_tokenizer
from instpt_assets.recipe.training import TokenizerRecipe

WORDS = ["a", "array", "returns", "a", "copy", "of", "its", "elements", "along", "an", "axis", "and", "raises", "errors"]


def texts(count: int = 200, seed: int = 0) -> list[str]:
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=20)) + ".\n\nGrüße, 数組 </s> <CON>\n" for _ in range(count)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(texts(), 400, out=out)
    return out / "tokenizer"


def test_transformers_loads_the_folder_and_adds_no_special_token(folder: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id) == (0, 1, 2)
    text = "  the array\n\n returns Grüße 数組 ."
    ids = tokenizer(text)["input_ids"]
    assert not set(ids) & {0, 1, 2}
    assert tokenizer.decode(ids) == text
    assert tokenizer("a</s>")["input_ids"][-1] == 2
    assert ids == load_encoder(folder).encode(text)


def test_vocabulary_size_counts_every_token_and_is_reported(tmp_path: Path) -> None:
    statistics = train_tokenizer(texts(), 300, out=tmp_path)
    assert statistics["vocab_size"] == load_encoder(tmp_path / "tokenizer").vocab_size == 300
    assert statistics["num_texts"] == 200
    assert statistics["num_bytes"] == sum(len(text.encode()) for text in texts())


def test_same_texts_give_the_same_bytes_in_any_order_and_with_any_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train_tokenizer(texts(), 400, out=tmp_path / "a")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    train_tokenizer(reversed(texts()), 400, out=tmp_path / "b")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "a/tokenizer" / name).read_bytes() == (tmp_path / "b/tokenizer" / name).read_bytes()


def test_special_tokens_in_text_stay_text(folder: Path) -> None:
    encoder = load_encoder(folder)
    ids = encoder.encode("a </s><s><pad> b")
    assert not set(ids) & {0, 1, 2}
    assert encoder.tokenizer.decode(ids) == "a </s><s><pad> b"


def test_markers_are_single_tokens_behind_the_vocabulary(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    train_tokenizer(texts(), 300, out=tmp_path)
    ids = add_markers(tmp_path / "tokenizer", ["<QUE>", "<ANS>"])
    assert ids == {"<QUE>": 300, "<ANS>": 301}
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "tokenizer")
    assert tokenizer("axis <ANS> a")["input_ids"].count(301) == 1
    assert load_encoder(tmp_path / "tokenizer").vocab_size == 302
    assert 301 not in load_encoder(tmp_path / "tokenizer").encode("axis <ANS> a")


def test_a_local_models_tokenizer_is_copied_as_it_is(folder: Path, tmp_path: Path) -> None:
    statistics = copy_tokenizer(folder, out=tmp_path)
    assert statistics["vocab_size"] == load_encoder(folder).vocab_size
    assert (tmp_path / "tokenizer/tokenizer.json").read_bytes() == (folder / "tokenizer.json").read_bytes()


def test_a_model_without_fast_tokenizer_or_eos_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    with pytest.raises(ValueError, match=r"no tokenizer\.json"):
        copy_tokenizer(tmp_path / "none", out=tmp_path / "a")
    copy_tokenizer(folder, out=tmp_path / "b")
    (tmp_path / "b/tokenizer/tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))
    with pytest.raises(ValueError, match="names no EOS token"):
        load_encoder(tmp_path / "b/tokenizer")


def test_the_recipe_decides_between_training_and_copying(folder: Path, tmp_path: Path) -> None:
    table = tmp_path / "data-00000.parquet"
    pl.DataFrame({"document_id": [str(i) for i in range(200)], "text": texts()}).write_parquet(table)
    trained = make_tokenizer(TokenizerRecipe(vocab_size=400, pinned_shards=("c--0",)), [table], out=tmp_path / "a")
    copied = make_tokenizer(TokenizerRecipe(model="org/model"), [], base_model=folder, out=tmp_path / "b")
    assert trained["num_texts"] == 200
    assert trained["sample_bytes"] == trained["num_bytes"]
    encode = load_encoder(tmp_path / "a/tokenizer").encode
    assert trained["bytes_per_token"] == pytest.approx(trained["num_bytes"] / sum(len(encode(text)) for text in texts()))
    preview, copy = ((tmp_path / name / "logs/preview.md").read_text() for name in "ab")
    assert "The first text begins" in preview and preview.startswith(copy) and f"{trained['vocab_size']} tokens" in copy
    assert "2 &#60;/s&#62;" in copy and '" elements"' in copy
    assert trained["vocab_size"] == copied["vocab_size"]
    assert (tmp_path / "a/tokenizer/tokenizer.json").read_bytes() == (tmp_path / "b/tokenizer/tokenizer.json").read_bytes()


def test_too_small_a_vocabulary_and_no_text_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="vocab_size 258 is too small"):
        train_tokenizer(texts(), 258, out=tmp_path)
    with pytest.raises(ValueError, match="no text"):
        train_tokenizer([], 400, out=tmp_path)
