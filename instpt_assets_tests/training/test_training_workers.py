"""The three training workers on a small store: from the task to committed checkpoints."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from instpt_assets.mixture.instructions import tokenize_instructions
from instpt_assets.mixture.mix import build_mixture
from instpt_assets.mixture.tokenized import tokenize_raw
from instpt_assets.mixture.tokenizer import train_tokenizer
from instpt_assets.recipe.arms import Component
from instpt_assets.recipe.execution import Execution, TrainingExecution
from instpt_assets.recipe.synthesis import Curriculum, Layouts, Synthesizer
from instpt_assets.recipe.training import InstructionTuning, ModelShape, Optimization, Pretraining
from instpt_assets.store.making import find_or_make
from instpt_assets.store.manifest import Spec
from instpt_assets.store.store import Artifact, Store, artifact_inputs
from instpt_assets.workers import instruction_tune, pretrain, tune
from instpt_assets.workers.runtime import Task
from instpt_assets.workers.training import run_training_worker

SHAPE = ModelShape(hidden_size=64, num_layers=2, num_heads=2, intermediate_size=64, max_position_embeddings=128, tie_word_embeddings=True)
BUDGET = Optimization(token_budget=6 * 512, batch_tokens=512, learning_rate=0.003, warmup_steps=1)
SENTENCE = "The copy of an array holds {0} elements along its axis, and a view of it was made in release {0} by the same call. "


class SmallStore:
    """A store whose artifacts the tests make one after another."""

    def __init__(self, url: Path) -> None:
        self.store = Store(str(url))
        self.made: dict[str, Artifact] = {}

    def add(self, asset: str, inputs: list[str], fill: Callable[[Path], Any], partition: str = "all", recipe: Any = None) -> None:
        spec = Spec(
            asset=asset,
            partition=partition,
            code_version=1,
            recipe=recipe or {},
            inputs=artifact_inputs(self.made[name] for name in inputs),
        )
        self.made[asset] = find_or_make(self.store, spec, lambda spec, inputs, out: fill(out) or {}).artifact

    def local(self, asset: str) -> Path:
        return self.made[asset].local()

    def train(self, worker: Any, asset: str, inputs: list[str], recipe: dict[str, Any], partition: str) -> Artifact:
        spec = Spec(
            asset=asset, partition=partition, code_version=1, recipe=recipe, inputs=artifact_inputs(self.made[name] for name in inputs)
        )
        execution = Execution(num_threads=1, training=TrainingExecution(micro_batch_tokens=256))
        task = Path(self.store.url, "task.json")
        task.write_text(Task(store=self.store.url, execution=execution, jobs=(spec,)).model_dump_json())
        unfinished = Path(self.store.url, "_progress", asset, partition, spec.identity)
        unfinished.mkdir(parents=True)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["worker", str(task)])
            run_training_worker(worker.make)
        assert not unfinished.exists()
        self.made[asset] = self.store.find(spec)
        return self.made[asset]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> SmallStore:
    small = SmallStore(tmp_path_factory.mktemp("store"))
    texts = [SENTENCE.format(number) * 3 for number in range(60)]
    clean = pl.DataFrame({"document_id": [f"d{n}" for n in range(60)], "text": texts, "source": "s", "metadata": "{}"})
    small.add("clean_corpus", [], lambda out: clean.write_parquet(out / "data-00000.parquet"), partition="shard")
    pairs = [[{"instruction": "How many elements?", "response": str(n), "options": [], "reasoning": None}] for n in range(60)]
    schema = {"instruction": pl.String, "response": pl.String, "options": pl.List(pl.String), "reasoning": pl.String}
    collection = pl.DataFrame(
        {
            "example_id": [f"e{n}" for n in range(60)],
            "dataset": "counts",
            "split": "train",
            "context": [SENTENCE.format(n).strip() for n in range(60)],
            "pairs": pl.Series(pairs, dtype=pl.List(pl.Struct(schema))),
            "license": "MIT",
        }
    )
    small.add("tuning_collection", [], lambda out: collection.write_parquet(out / "data-00000.parquet"))
    small.add("tokenizer", ["clean_corpus"], lambda out: train_tokenizer(texts, 300, out=out))
    tokenizer = small.local("tokenizer") / "tokenizer"
    small.add(
        "tokenized_raw",
        ["clean_corpus", "tokenizer"],
        lambda out: tokenize_raw([small.local("clean_corpus") / "data-00000.parquet"], tokenizer=tokenizer, out=out),
        partition="shard",
    )
    small.add(
        "tokenized_instructions",
        ["tuning_collection", "tokenizer"],
        lambda out: tokenize_instructions(
            collection_tables=[small.local("tuning_collection") / "data-00000.parquet"],
            general=None,
            tokenizer=tokenizer,
            layouts=Layouts(),
            out=out,
        ),
    )
    small.add(
        "vanilla/tokenized_mixture",
        ["tokenized_raw"],
        lambda out: build_mixture(
            [Component(component="corpus")],
            raw={"shard": small.local("tokenized_raw")},
            seed=0,
            token_budget=BUDGET.token_budget,
            batch_tokens=BUDGET.batch_tokens,
            sequence_length=64,
            out=out,
        ),
        partition="seed-0",
    )
    return small


def test_arm_is_pretrained_and_then_tuned_on_responses(small):
    pretraining = Pretraining(model=SHAPE, sequence_length=64, optimization=BUDGET, checkpoint_steps=(2, 4))
    artifact = small.train(
        pretrain,
        "vanilla/pretrained_checkpoint",
        ["vanilla/tokenized_mixture", "tokenizer"],
        {"pretraining": pretraining.hashed(), "seed": "seed-0"},
        "seed-0",
    )
    assert {"training_log.jsonl", "loss.png"} <= set(artifact.names)
    weights = {name: artifact.file(f"{name}/model.safetensors").read_bytes() for name in ("checkpoint-2", "checkpoint-4", "checkpoint")}
    assert len(set(weights.values())) == 3
    assert artifact.manifest.statistics["final_loss"] < artifact.manifest.statistics["first_loss"]

    tuning = InstructionTuning(sequence_length=128, optimization=BUDGET)
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
    assert [phase["name"] for phase in artifact.manifest.statistics["data"]["phases"]][-1] == "tuning"
