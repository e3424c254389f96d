"""Training and evaluation workers whose inputs and outputs lie on S3."""

from importlib.metadata import version
from pathlib import Path

import polars as pl
from transformers import AutoModelForCausalLM

from instpt_assets.evaluation.scores import SCORE_SCHEMA
from instpt_assets.recipe.evaluation import Evaluation
from instpt_assets.recipe.training import Pretraining
from instpt_assets.store.manifest import Spec
from instpt_assets.store.store import Store
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
