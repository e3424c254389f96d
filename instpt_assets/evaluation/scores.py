"""The score tables: one row a checkpoint, task and metric (`data-00000.parquet`), one a scored example (`examples.parquet`)."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import polars as pl

SCORE_SCHEMA = pl.Schema(
    {
        "arm": pl.String,
        "seed": pl.Int64,
        "checkpoint": pl.String,
        "step": pl.Int64,
        "task": pl.String,
        "metric": pl.String,
        "value": pl.Float64,
        "stderr": pl.Float64,
        "num_fewshot": pl.Int64,
        "num_examples": pl.Int64,
        "task_version": pl.String,
        "backend": pl.String,
    }
)
EXAMPLE_SCHEMA = pl.Schema(
    {
        "checkpoint": pl.String,
        "task": pl.String,
        "example_id": pl.String,
        "metric": pl.String,
        "prompt": pl.String,
        "target": pl.String,
        "answer": pl.String,
        "score": pl.Float64,
        "weight": pl.Float64,
    }
)


@dataclass(frozen=True)
class Score:
    """One metric of one task."""

    task: str
    metric: str
    value: float
    stderr: float | None
    """Standard error over the task's examples, if there is one."""
    num_fewshot: int
    num_examples: int
    task_version: str
    """Hash of the task's configuration and examples: scores of different versions do not compare."""
    backend: str
    """What computed it."""


@dataclass(frozen=True)
class Example:
    """One scored example."""

    task: str
    example_id: str
    metric: str
    prompt: str
    target: str
    answer: str
    """What the model chose or wrote."""
    score: float
    weight: float = 1.0
    """The task's value is the mean of the scores under these weights."""


@dataclass(frozen=True)
class CheckpointScores:
    """What the evaluation of one checkpoint gives."""

    scores: tuple[Score, ...]
    examples: tuple[Example, ...]


def write_scores(found: Sequence[tuple[str, int | None, CheckpointScores]], *, arm: str, seed: int, out: Path) -> int:
    """Write both tables of one arm and seed; scores without a value (`not_finite`) have no row.

    Args:
        found: `<pretrained|instruction_tuned>_checkpoint/<folder>`, step (None if unknown) and scores of each checkpoint.
        arm: the arm.
        seed: its repeat.
        out: an existing folder.

    Returns:
        Rows of the main table.
    """
    rows = [
        {"arm": arm, "seed": seed, "checkpoint": checkpoint, "step": step, **asdict(score), "stderr": _known(score.stderr)}
        for checkpoint, step, result in found
        for score in result.scores
        if math.isfinite(score.value)
    ]
    examples = [{"checkpoint": checkpoint, **asdict(example)} for checkpoint, _, result in found for example in result.examples]
    pl.DataFrame(rows, schema=SCORE_SCHEMA, orient="row").write_parquet(out / "data-00000.parquet", compression="zstd")
    pl.DataFrame(examples, schema=EXAMPLE_SCHEMA, orient="row").write_parquet(out / "examples.parquet", compression="zstd")
    return len(rows)


def not_finite(found: Sequence[tuple[str, int | None, CheckpointScores]]) -> dict[str, str]:
    """Scores that are no number or infinite (a model that gives NaN, a perplexity too large), by checkpoint, task and metric."""
    return {
        f"{checkpoint}: {score.task}/{score.metric}": str(score.value)
        for checkpoint, _, result in found
        for score in result.scores
        if not math.isfinite(score.value)
    }


def _known(stderr: float | None) -> float | None:
    return stderr if stderr is not None and math.isfinite(stderr) else None
