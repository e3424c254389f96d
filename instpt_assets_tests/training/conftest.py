"""A training of the tiny model."""

import os

# Read when torch is loaded: threads that spin are slow where cores are shared.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from instpt_assets.recipe.execution import TrainingExecution
from instpt_assets.training.loop import train
from instpt_assets.training.model import build_model
from instpt_assets_tests.training.tiny import LENGTH, SHAPE, VOCAB_SIZE, CountingSource, optimization


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., tuple[dict[str, Any], Path]]:
    """Train the tiny model; statistics and the folder of its files."""

    def go(name: str = "out", *, micro_batch_tokens: int = 4 * LENGTH, model: Any = None, source: Any = None, **arguments: Any):
        torch.set_num_threads(1)
        out = tmp_path / name
        out.mkdir()
        start = model or build_model(SHAPE, VOCAB_SIZE, seed=1, bos_token_id=1, eos_token_id=2, pad_token_id=0)
        recipe = arguments.pop("recipe", optimization())
        execution = TrainingExecution(micro_batch_tokens=micro_batch_tokens)
        return train(start, source or CountingSource(), recipe, execution, out=out, **arguments), out

    return go
