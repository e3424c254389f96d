"""A small store with what the training workers take, and workers run on it in this process."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from instpt_assets.mixture.instructions import tokenize_instructions
from instpt_assets.mixture.mix import build_mixture
from instpt_assets.mixture.row_index import folder_indices
from instpt_assets.mixture.tokenized import tokenize_raw
from instpt_assets.mixture.tokenizer import train_tokenizer
from instpt_assets.recipe.arms import Component
from instpt_assets.recipe.execution import Execution, TrainingExecution
from instpt_assets.recipe.synthesis import Layouts
from instpt_assets.recipe.training import ModelShape, Optimization
from instpt_assets.store.making import find_or_make
from instpt_assets.store.manifest import Input, Spec
from instpt_assets.store.store import Artifact, Store, cache_folder
from instpt_assets.workers.runtime import Task
from instpt_assets.workers.training import run_training_worker

SHAPE = ModelShape(
    hidden_size=96,
    num_layers=2,
    num_heads=3,
    intermediate_size=64,
    max_position_embeddings=128,
    rope_theta=1e6,
    tie_word_embeddings=True,
)
BUDGET = Optimization(token_budget=6 * 512, batch_tokens=512, learning_rate=0.003, warmup_steps=1)
SENTENCE = "The copy of an array holds {0} elements along its axis, and a view of it was made in release {0} by the same call. "


class SmallStore:
    """A store whose artifacts the tests make one after another.

    Args:
        store: where they lie.
        folder: for the workers' tasks.
    """

    def __init__(self, store: Store, folder: Path) -> None:
        self.store, self.folder = store, folder
        self.made: dict[str, Artifact] = {}

    def add(self, asset: str, inputs: list[str], fill: Callable[[Path], Any], partition: str = "all", recipe: Any = None) -> None:
        spec = Spec(
            asset=asset,
            partition=partition,
            code_version=1,
            recipe=recipe or {},
            inputs=self.inputs(inputs),
        )
        self.made[asset] = find_or_make(self.store, spec, lambda spec, inputs, out: fill(out) or {}).artifact

    def local(self, asset: str) -> Path:
        return self.made[asset].local()

    def inputs(self, assets: list[str]) -> tuple[Input, ...]:
        return tuple(self.made[asset].manifest.as_input() for asset in assets)

    def mix(self, optimization: Optimization) -> None:
        """The arm's mixture for these budgets."""
        amounts = {
            "token_budget": optimization.token_budget,
            "extended_from": list(optimization.extended_from),
            "batch_tokens": optimization.batch_tokens,
        }
        self.add(
            "vanilla/tokenized_mixture",
            ["tokenized_raw"],
            lambda out: build_mixture(
                [Component(component="corpus")],
                folder_indices({("tokenized_raw", "shard"): self.local("tokenized_raw")}),
                seed=0,
                sequence_length=64,
                out=out,
                **amounts,
            ),
            partition="seed-0",
            recipe=amounts,
        )

    def train(self, worker: Any, asset: str, inputs: list[str], recipe: dict[str, Any], partition: str, *sources: Input) -> Artifact:
        """What a training worker commits; of its state nothing stays."""
        spec = Spec(asset=asset, partition=partition, code_version=1, recipe=recipe, inputs=(*self.inputs(inputs), *sources))
        root = Path(self.store.root) if self.store.is_local else cache_folder()
        unfinished = root / "_progress" / asset / partition / spec.identity
        unfinished.mkdir(parents=True)
        artifact = self.run(run_training_worker, worker, spec)
        assert not unfinished.exists()
        return artifact

    def run(self, main: Callable[[Any], None], worker: Any, spec: Spec) -> Artifact:
        """What a worker commits, run in this process on a task of this one artifact."""
        execution = Execution(num_threads=1, training=TrainingExecution(micro_batch_tokens=256))
        task = self.folder / "task.json"
        task.write_text(Task(store=self.store.url, execution=execution, jobs=(spec,)).model_dump_json())
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["worker", str(task)])
            main(worker.make)
        artifact = self.store.find(spec)
        assert artifact is not None
        self.made[spec.asset] = artifact
        return artifact


def small_store(store: Store, folder: Path) -> SmallStore:
    """A store with everything from clean documents to an arm's mixture."""
    small = SmallStore(store, folder)
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
    small.mix(BUDGET)
    return small
