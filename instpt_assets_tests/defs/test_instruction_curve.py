"""The scores along pre-training and instruction tuning, from the recipe to the report, with every real worker."""

import json
from pathlib import Path

import polars as pl
import pytest
from light_project import CORPUS, LightProject, failure

from instpt_assets.defs.shards import range_tags

SHARDS, SEEDS = range_tags("notes--a", "notes--c"), range_tags("seed-0", "seed-1")


@pytest.mark.slow
def test_scores_along_both_trainings_of_two_arms_are_drawn(tmp_path: Path) -> None:
    questions = [{"instruction": f"How much is {n} and 1?", "response": f"It is {n + 1}."} for n in range(200)]
    general = tmp_path / "general.jsonl"
    general.write_text("".join(json.dumps(question) + "\n" for question in questions))
    light = LightProject(
        tmp_path,
        num_seeds=2,
        general_instructions={"source": str(general)},
        pretraining={
            "model": {"hidden_size": 96, "num_layers": 2, "num_heads": 3, "intermediate_size": 96, "max_position_embeddings": 128},
            "sequence_length": 128,
            "optimization": {"token_budget": 24576, "batch_tokens": 512, "learning_rate": 0.003},
            "checkpoint_steps": [12],
        },
        instruction_tuning={
            "sequence_length": 128,
            "optimization": {"token_budget": 16384, "batch_tokens": 512, "learning_rate": 0.01},
            "components": ["general"],
            "checkpoint_steps": [4, 12],
            "lora": {"rank": 4},
        },
        arms={
            "vanilla": {"mixture": [{"component": "corpus"}]},
            "mix": {"mixture": [{"component": "corpus", "ratio": 0.7}, {"component": "general", "ratio": 0.3}]},
        },
    )
    for job, assets, tags in (
        ("shards", CORPUS, SHARDS),
        ("synthesizer", (), None),
        ("shards", ("tokenized_raw",), SHARDS),
        ("seeds", (), SEEDS),
        ("report", (), None),
    ):
        done = light.run(job, *assets, tags=tags)
        assert done.success, failure(done)

    report = light.project.plan().current("comparison_report")
    points = pl.read_parquet(report.file("curves.parquet")).filter(pl.col("metric") == "bits_per_byte")
    tuned = points.filter(pl.col("stage") == "instruction_tuned")
    for arm in ("vanilla", "mix"):
        assert points.filter(pl.col("arm") == arm, pl.col("stage") == "pretrained")["step"].to_list() == [12, 48]
        assert tuned.filter(pl.col("arm") == arm)["step"].to_list() == [0, 4, 12, 32]
    assert points["num_seeds"].to_list() == [2] * points.height
    # Step 0 is the pre-trained model.
    table = pl.read_parquet(light.project.plan().current("vanilla/eval_scores", "seed-1").tables())
    last = table.filter(pl.col("metric") == "bits_per_byte", pl.col("checkpoint") == "pretrained_checkpoint/checkpoint")["value"].item()
    start = tuned.filter(pl.col("arm") == "vanilla", pl.col("step") == 0).row(0, named=True)
    assert last in (start["lowest"], start["highest"])
    assert {"scores_over_pretraining.png", "scores_over_instruction_tuning.png"} <= set(report.names)
    tuning = light.project.plan().current("mix/instruction_tuned_checkpoint", "seed-0").manifest.statistics
    assert tuning["data"]["num_examples"] == 200 and tuning["num_trained_parameters"] < tuning["num_parameters"] / 5
