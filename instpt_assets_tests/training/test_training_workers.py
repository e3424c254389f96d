"""The three training workers on a small store: from the task to committed checkpoints."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from instpt_assets.recipe.lora import Lora
from instpt_assets.recipe.synthesis import Curriculum, Synthesizer
from instpt_assets.recipe.training import InstructionTuning, Optimization, Pretraining
from instpt_assets.store.manifest import Input
from instpt_assets.store.store import Artifact, Store, source_input
from instpt_assets.training.base_models import WEIGHT_FILES, find_base_model
from instpt_assets.training.model import build_for_tokenizer
from instpt_assets.workers import instruction_tune, pretrain, tune
from instpt_assets_tests.training.small_store import BUDGET, SHAPE, SmallStore, small_store


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> SmallStore:
    folder = tmp_path_factory.mktemp("small")
    return small_store(Store(str(folder / "store")), folder)


def test_arm_is_pretrained_and_then_tuned_on_responses(small):
    pretraining = Pretraining(model=SHAPE, sequence_length=64, optimization=BUDGET, checkpoint_steps=(2, 4))
    artifact = small.train(
        pretrain,
        "vanilla/pretrained_checkpoint",
        ["vanilla/tokenized_mixture", "tokenizer"],
        {"pretraining": pretraining.hashed(), "seed": "seed-0"},
        "seed-0",
    )
    assert {"training_log.jsonl", "logs/training.png", "logs/training_times.jsonl"} <= set(artifact.names)
    weights = {name: artifact.file(f"{name}/model.safetensors").read_bytes() for name in ("checkpoint-2", "checkpoint-4", "checkpoint")}
    assert len(set(weights.values())) == 3
    assert artifact.manifest.statistics["final_loss"] < artifact.manifest.statistics["first_loss"]

    tuning = InstructionTuning(
        sequence_length=128, optimization=BUDGET, components=("tuning_pairs",), checkpoint_steps=(2,), lora=Lora(rank=4)
    )
    tuned = small.train(
        instruction_tune,
        "vanilla/instruction_tuned_checkpoint",
        ["vanilla/pretrained_checkpoint", "tokenized_instructions", "tokenizer"],
        {"instruction_tuning": tuning.hashed(), "seed": "seed-0"},
        "seed-0",
    )
    statistics = tuned.manifest.statistics
    # Responses are short: most tokens have no loss.
    assert 0 < statistics["loss_tokens"] < statistics["tokens"] / 4
    assert 0 < statistics["num_trained_parameters"] < statistics["num_parameters"] / 4
    weights = [load_file(tuned.file(f"{name}/model.safetensors")) for name in ("checkpoint-2", "checkpoint")]
    weights.append(load_file(artifact.file("checkpoint/model.safetensors")))
    early, late, before = (part["model.layers.0.self_attn.q_proj.weight"] for part in weights)
    assert not torch.equal(early, late) and not torch.equal(early, before)
    card = ModelCard.load(tuned.file("checkpoint/README.md"))
    assert "instruction-tuning" in card.data.tags and f"`{artifact.manifest.digest}`" in card.text and "`adapter/`" in card.text
    AutoModelForCausalLM.from_pretrained(tuned.local() / "checkpoint")


def test_synthesizer_from_a_wired_start_knows_its_markers(small):
    synthesizer = Synthesizer(
        model=SHAPE,
        vocab_size=320,
        pinned_shards=("shard",),
        curriculum=Curriculum(span_copy_tokens=512, rote_tokens=512),
        sequence_length=128,
        optimization=BUDGET,
    )
    artifact = small.train(tune, "instruction_synthesizer", ["tuning_collection", "clean_corpus"], synthesizer.hashed(), "all")
    folder = artifact.local() / "checkpoint"
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    markers = tokenizer.convert_tokens_to_ids(["<CON>", "</CON>", "<QUE>", "<ANS>", "</END>"])
    assert len(set(markers)) == 5 and max(markers) < model.config.vocab_size == len(tokenizer)
    assert "instruction-synthesizer" in ModelCard.load(folder / "README.md").data.tags
    assert [phase["name"] for phase in artifact.manifest.statistics["data"]["phases"]][-1] == "tuning"


COMMITS = ("1" * 40, "2" * 40)
STILL = Optimization(token_budget=512, batch_tokens=512, learning_rate=1e-12, weight_decay=0.0, dtype="float32")


@pytest.fixture
def hub(small: SmallStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's cache with two revisions of one model, whose weights differ; `main` is the second."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--org--tiny"
    tokenizer = small.local("tokenizer") / "tokenizer"
    for seed, commit in enumerate(COMMITS):
        build_for_tokenizer(SHAPE, tokenizer, seed=seed).save_pretrained(repository / "snapshots" / commit)
        shutil.copytree(tokenizer, repository / "snapshots" / commit, dirs_exist_ok=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMITS[1])
    return repository / "snapshots"


def pretrain_from(small: SmallStore, model: str, *sources: Input) -> Artifact:
    pretraining = Pretraining(model=model, sequence_length=64, optimization=STILL)
    inputs = ["vanilla/tokenized_mixture", "tokenizer"]
    recipe = {"pretraining": pretraining.hashed(), "seed": "seed-0"}
    return small.train(pretrain, "vanilla/pretrained_checkpoint", inputs, recipe, "seed-0", *sources)


@pytest.mark.parametrize("commit", COMMITS)
def test_a_base_model_of_the_hub_is_trained_at_exactly_its_commit(small: SmallStore, hub: Path, commit: str) -> None:
    found = find_base_model(f"org/tiny@{commit}", WEIGHT_FILES)
    artifact = pretrain_from(small, found.pinned, source_input(found.url, found.digest))
    trained, base, other = (
        AutoModelForCausalLM.from_pretrained(folder).lm_head.weight
        for folder in (artifact.local() / "checkpoint", hub / commit, hub / next(c for c in COMMITS if c != commit))
    )
    assert torch.allclose(trained, base, atol=1e-3) and not torch.allclose(trained, other, atol=1e-3)


def test_a_synthesizer_is_tuned_from_exactly_its_base_models_commit_and_tokenizer(small: SmallStore, hub: Path) -> None:
    found = find_base_model(f"org/tiny@{COMMITS[0]}", WEIGHT_FILES)
    synthesizer = Synthesizer(model=found.pinned, sequence_length=128, optimization=STILL)
    source = source_input(found.url, found.digest)
    artifact = small.train(tune, "instruction_synthesizer", ["tuning_collection"], synthesizer.hashed(), "all", source)
    folder = artifact.local() / "checkpoint"
    tuned, base = (AutoModelForCausalLM.from_pretrained(path).lm_head.weight for path in (folder, hub / COMMITS[0]))
    assert torch.allclose(tuned, base, atol=1e-3)
    assert (folder / "tokenizer.json").read_bytes() == (hub / COMMITS[0] / "tokenizer.json").read_bytes()


def test_a_base_model_that_changes_before_its_worker_starts_ends_it(small: SmallStore, hub: Path, capsys: Any) -> None:
    folder = hub / COMMITS[0]
    source = source_input(str(folder), find_base_model(str(folder), WEIGHT_FILES).digest)
    (folder / "config.json").write_text((folder / "config.json").read_text() + " ")
    with pytest.raises(SystemExit):
        pretrain_from(small, str(folder), source)
    assert "has changed since this was planned: materialize again" in capsys.readouterr().out
