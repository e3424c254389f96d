"""A tiny model's shape, and data that it can learn: each token follows from the one before."""

from pathlib import Path
from typing import Any

import numpy as np

from instpt_assets.mixture.sequences import TrainingSequence
from instpt_assets.recipe.training import ModelShape, Optimization

VOCAB_SIZE = 64
LENGTH = 32
SHAPE = ModelShape(hidden_size=32, num_layers=2, num_heads=2, intermediate_size=64, max_position_embeddings=64, tie_word_embeddings=True)


class CountingSource:
    """Runs of consecutive tokens; loss on all tokens but the first `unlearned` ones."""

    sequence_length = LENGTH
    document_attention = False

    def __init__(self, num_sequences: int = 64, unlearned: int = 0) -> None:
        self.num_sequences, self.unlearned = num_sequences, unlearned

    def __len__(self) -> int:
        return self.num_sequences

    def sequence(self, index: int) -> TrainingSequence:
        start = int(np.random.default_rng(index).integers(3, VOCAB_SIZE))
        ids = 3 + (start + np.arange(LENGTH, dtype=np.int64)) % (VOCAB_SIZE - 3)
        labels = ids.copy()
        # Sequences differ in how many tokens they learn from, so that a mean of means would show.
        labels[: self.unlearned * (index % 3)] = -100
        return TrainingSequence(ids, labels, np.zeros(1, dtype=np.int64))

    def describe(self, index: int) -> str:
        return f"count {index}"


def optimization(**changes: Any) -> Optimization:
    fields = {"token_budget": 8 * 6 * LENGTH, "batch_tokens": 6 * LENGTH, "learning_rate": 0.01, "warmup_steps": 2, "dtype": "float32"}
    return Optimization(**{**fields, **changes})


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder by its name; logs, which hold times, left out."""
    names = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    return {name: path.read_bytes() for name, path in names.items() if not name.startswith("logs/")}
