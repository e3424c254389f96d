"""A model is never trained on another tokenizer's ids: told before the first step, with the difference."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from instpt_assets.mixture.tokenizer import train_tokenizer
from instpt_assets.recipe.training import InstructionTuning, Optimization, Pretraining
from instpt_assets.store.store import Store, source_input
from instpt_assets.training.base_models import WEIGHT_FILES, find_base_model
from instpt_assets.training.model import build_for_tokenizer
from instpt_assets.training.same_tokenizer import OtherTokenizer, check_same_tokenizer, tokenizer_difference
from instpt_assets.workers import instruction_tune, pretrain
from instpt_assets_tests.training.small_store import SHAPE, SmallStore, small_store

ONE_STEP = Optimization(token_budget=512, batch_tokens=512, learning_rate=0.001)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> SmallStore:
    folder = tmp_path_factory.mktemp("small")
    return small_store(Store(str(folder / "store")), folder)


def changed(tokenizer: Path, out: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    shutil.copytree(tokenizer, out)
    content = json.loads((out / "tokenizer.json").read_text())
    change(content)
    (out / "tokenizer.json").write_text(json.dumps(content))
    return out


def swap(content: dict[str, Any]) -> None:
    vocabulary = content["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (swap, "token '[ab]' is [0-9]+ in the one and [0-9]+ in the model's"),
        (lambda content: content["model"]["vocab"].update({"new": 300}), "300 tokens against the model's 301; only one of them has 'new'"),
        (lambda content: content["model"]["merges"].reverse(), "they merge other pairs"),
        (lambda content: content["pre_tokenizer"].update({"add_prefix_space": True}), r"they split text differently \(pre_tokenizer\)"),
    ],
)
def test_what_can_change_an_id_is_a_difference(small: SmallStore, tmp_path: Path, change: Any, told: str) -> None:
    tokenizer = small.local("tokenizer") / "tokenizer"
    with pytest.raises(OtherTokenizer, match=f"not that of the model 'org/model': {told}"):
        check_same_tokenizer(tokenizer, changed(tokenizer, tmp_path / "model", change), name="org/model")


def test_what_another_library_version_writes_otherwise_is_none(small: SmallStore, tmp_path: Path) -> None:
    tokenizer = small.local("tokenizer") / "tokenizer"
    loaded = AutoTokenizer.from_pretrained(tokenizer)
    loaded("text", truncation=True, max_length=8, padding="max_length")  # which it writes into the file
    loaded.save_pretrained(tmp_path / "saved")
    old = changed(
        tokenizer, tmp_path / "old", lambda content: content["model"].update(merges=[" ".join(m) for m in content["model"]["merges"]])
    )
    for other in (tmp_path / "saved", old):
        assert (other / "tokenizer.json").read_bytes() != (tokenizer / "tokenizer.json").read_bytes()
        assert tokenizer_difference(tokenizer / "tokenizer.json", other / "tokenizer.json") is None


def base_model(folder: Path, tokenizer: Path) -> Path:
    build_for_tokenizer(SHAPE, tokenizer, seed=0).save_pretrained(folder)
    shutil.copytree(tokenizer, folder, dirs_exist_ok=True)
    return folder


def pretrained(small: SmallStore, model: Path) -> None:
    pretraining = Pretraining(model=str(model), sequence_length=64, optimization=ONE_STEP)
    source = source_input(str(model), find_base_model(str(model), WEIGHT_FILES).digest)
    inputs = ["vanilla/tokenized_mixture", "tokenizer"]
    recipe = {"pretraining": pretraining.hashed(), "seed": "seed-0"}
    small.train(pretrain, "vanilla/pretrained_checkpoint", inputs, recipe, "seed-0", source)


def test_a_base_model_of_another_tokenizer_ends_its_worker_before_it_is_loaded(small: SmallStore, tmp_path: Path, capsys: Any) -> None:
    train_tokenizer(["other texts, other merges"] * 3, 270, out=tmp_path)
    model = base_model(tmp_path / "model", tmp_path / "tokenizer")
    with pytest.raises(SystemExit):
        pretrained(small, model)
    assert f"the recipe's tokenizer is not that of the model '{model}': 300 tokens against the model's 2" in capsys.readouterr().out


def test_tokens_and_a_checkpoint_of_an_earlier_tokenizer_end_the_worker(small: SmallStore, tmp_path: Path, capsys: Any) -> None:
    pretrained(small, base_model(tmp_path / "model", small.local("tokenizer") / "tokenizer"))
    small.add("tokenizer", ["clean_corpus"], lambda out: train_tokenizer(["another text"] * 3, 280, out=out), recipe={"vocab_size": 280})
    with pytest.raises(SystemExit):
        pretrained(small, base_model(tmp_path / "other", small.local("tokenizer") / "tokenizer"))
    assert "tokenized_raw/shard was tokenized with another tokenizer than the recipe's: materialize it again" in capsys.readouterr().out
    tuning = InstructionTuning(sequence_length=64, optimization=ONE_STEP)
    inputs = ["vanilla/pretrained_checkpoint", "tokenized_instructions", "tokenizer"]
    recipe = {"instruction_tuning": tuning.hashed(), "seed": "seed-0"}
    with pytest.raises(SystemExit):
        small.train(instruction_tune, "vanilla/instruction_tuned_checkpoint", inputs, recipe, "seed-0")
    assert "the recipe's tokenizer is not that of the model 'vanilla/pretrained_checkpoint'" in capsys.readouterr().out
