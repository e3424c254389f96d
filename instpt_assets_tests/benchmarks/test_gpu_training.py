"""The GPU benchmark's script: it runs (tiny, on the CPU), and its models are the bundled recipes'."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from instpt_assets.recipe.loading import load_recipe
from instpt_assets_tests.benchmarks.gpu_training import SHAPES, parts

ROOT = Path(__file__).parents[2]


def test_its_models_are_those_of_the_bundled_recipes() -> None:
    for name, shape in SHAPES.items():
        pretraining = load_recipe(name).pretraining
        assert pretraining.model == shape
        assert pretraining.sequence_length == parts()[name].length
    continual = load_recipe("biomedicine_llama3_8b").pretraining
    assert continual.sequence_length == parts()["llama3_8b"].length


@pytest.mark.slow
def test_every_row_of_it_is_measured_or_says_why_not(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "instpt_assets_tests.benchmarks.gpu_training", "--tiny", "--parts", "general_500m", "llama3_8b"]
    subprocess.run(command, check=True, cwd=ROOT, env=os.environ | {"OUT": str(tmp_path)}, timeout=300)
    result = json.loads((tmp_path / "gpu_training.json").read_text())
    rows = {(row["part"], row["row"]): row for row in result["rows"]}
    assert set(rows) == {(part, row.name) for part in ("general_500m", "llama3_8b") for row in parts()[part].rows}
    assert result["peak_tflops"] > 0
    for row in rows.values():
        if "left_out" in row:
            assert "GPUs only" in row["left_out"] or "not installed" in row["left_out"], row
        else:
            assert row["tokens_per_second"] > 0 and 0 < row["mfu"] < 1
            assert abs(row["first_loss"] - 6.24) < 0.2  # the logarithm of the tiny vocabulary: 512
