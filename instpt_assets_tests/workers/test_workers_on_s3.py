"""Training and evaluation workers whose inputs and outputs lie on S3."""

import shutil
from importlib.metadata import version
from pathlib import Path

import polars as pl
import pytest
from transformers import AutoModelForCausalLM

from instpt_assets.evaluation.scores import SCORE_SCHEMA
from instpt_assets.mixture.row_index import stored_indices
from instpt_assets.recipe.evaluation import Evaluation
from instpt_assets.recipe.execution import Execution
from instpt_assets.recipe.training import Pretraining
from instpt_assets.store.manifest import Spec
from instpt_assets.store.store import Store, resolve
from instpt_assets.workers import evaluate, pretrain
from instpt_assets.workers.runtime import run_worker
from instpt_assets_tests.training.small_store import BUDGET, SHAPE, small_store


def test_a_model_is_trained_and_scored(s3_store: Store, tmp_path: Path) -> None:
    small = small_store(s3_store, tmp_path)
    pretraining = Pretraining(model=SHAPE, sequence_length=64, optimization=BUDGET, checkpoint_steps=(4,))
    inputs = ["vanilla/tokenized_mixture", "tokenizer"]
    recipe = {"pretraining": pretraining.hashed(), "seed": "seed-0"}
    checkpoint = small.train(pretrain, "vanilla/pretrained_checkpoint", inputs, recipe, "seed-0")
    assert checkpoint.manifest.statistics["final_loss"] < checkpoint.manifest.statistics["first_loss"]
    AutoModelForCausalLM.from_pretrained(checkpoint.local() / "checkpoint")

    recipe = {
        "evaluation": Evaluation(held_out="pydoc://numpy?include=numpy.polynomial", num_examples=4).hashed(),
        "lm_eval": version("lm-eval"),
    }
    inputs = small.inputs(["vanilla/pretrained_checkpoint"])
    spec = Spec(asset="vanilla/eval_scores", partition="seed-0", code_version=1, recipe=recipe, inputs=inputs)
    scores = pl.read_parquet(small.run(run_worker, evaluate, spec).tables())
    assert scores.schema == SCORE_SCHEMA
    last = BUDGET.num_steps
    assert set(scores.select("checkpoint", "step").iter_rows()) == {
        ("pretrained_checkpoint/checkpoint-4", 4),
        ("pretrained_checkpoint/checkpoint", last),
    }
    assert scores["value"].is_finite().all()


def test_an_index_downloads_no_token_and_trainings_download_them_once(
    s3_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = small_store(s3_store, tmp_path)
    shutil.rmtree(tmp_path / "cache")
    downloads: list[str] = []
    get_file = s3_store.fs.get_file
    monkeypatch.setattr(s3_store.fs, "get_file", lambda remote, local: (downloads.append(remote), get_file(remote, local)))
    tokens = small.made["tokenized_raw"]
    stored_indices(s3_store, {("tokenized_raw", "shard"): tokens})
    assert sorted(Path(remote).name for remote in downloads) == ["data-00000.parquet", "offsets.npy"]

    pretraining = Pretraining(model=SHAPE, sequence_length=64, optimization=BUDGET)
    inputs = small.inputs(["vanilla/tokenized_mixture", "tokenizer"])
    for seed in ("seed-0", "seed-1"):
        recipe = {"pretraining": pretraining.hashed(), "seed": seed}
        spec = Spec(asset="vanilla/pretrained_checkpoint", partition=seed, code_version=1, recipe=recipe, inputs=inputs)
        artifacts = resolve(s3_store, inputs)
        if seed == "seed-1":
            artifacts = {**artifacts, ("vanilla/tokenized_mixture", "seed-1"): artifacts["vanilla/tokenized_mixture", "seed-0"]}
        monkeypatch.setattr("instpt_assets.store.store._VERIFIED", set())  # as in another process
        pretrain.training_job(spec, artifacts, Execution(), tmp_path)
    assert sum(remote.endswith("/tokens.npy") for remote in downloads) == 1 and len(downloads) == len(set(downloads))
