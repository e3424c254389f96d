"""Scores along a training: one point a checkpoint, from the score tables of all arms."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from instpt_assets.evaluation.comparison import STAGES, Compared, is_last, stage_of
from instpt_assets.evaluation.statistics import Estimate, over_seeds

CURVE_SCHEMA = pl.Schema(
    {
        "arm": pl.String,
        "stage": pl.String,
        "task": pl.String,
        "metric": pl.String,
        "step": pl.Int64,
        "value": pl.Float64,
        "stderr": pl.Float64,
        "lowest": pl.Float64,
        "highest": pl.Float64,
        "num_seeds": pl.Int64,
    }
)


@dataclass(frozen=True)
class Point:
    """One metric of one task for one arm after so many steps of a stage."""

    arm: str
    stage: str
    """`pretrained` or `instruction_tuned`."""
    task: str
    metric: str
    step: int
    """Of the stage's training; 0 of instruction tuning is the pre-trained model."""
    value: float
    """Mean over seeds."""
    stderr: float | None
    lowest: float
    """Of the seeds' values."""
    highest: float
    num_seeds: int


def curves(score_tables: Iterable[Path], arms: Sequence[str]) -> list[Point]:
    """The points of all arms, tasks and metrics of which a checkpoint on the way of a stage has a score: the last one alone is no curve.

    Instruction tuning begins with the pre-trained model's scores. Points that some of an arm's seeds lack are means of the others.

    Args:
        score_tables: main tables of all `eval_scores` and `instruction_tuned_eval_scores`.
        arms: the arms in order.

    Returns:
        Points in the order of stage, task, metric, arm, step.
    """
    rows = pl.concat([pl.read_parquet(path) for path in sorted(score_tables)]).filter(pl.col("step").is_not_null())
    found: dict[tuple[str, str, str, str, int], list[Estimate]] = {}
    kept: set[tuple[str, str, str]] = set()
    for row in rows.sort("seed").iter_rows(named=True):
        stage, step, last = stage_of(row["checkpoint"]), row["step"], is_last(row["checkpoint"])
        if not last:
            kept.add((stage, row["task"], row["metric"]))
        estimate = Estimate(row["value"], row["stderr"])
        found.setdefault((stage, row["task"], row["metric"], row["arm"], step), []).append(estimate)
        if last and stage == "pretrained":
            found.setdefault(("instruction_tuned", row["task"], row["metric"], row["arm"], 0), []).append(estimate)
    order = {stage: place for place, stage in enumerate(STAGES)}
    keys = sorted((key for key in found if key[:3] in kept), key=lambda key: (order[key[0]], *key[1:3], arms.index(key[3]), key[4]))
    return [_point(key, found[key]) for key in keys]


def shown_points(points: Iterable[Point], visible: Iterable[Compared]) -> dict[str, dict[str, dict[str, list[Point]]]]:
    """Points by stage, task and arm: of each task the metric that the report's tables show."""
    metrics = {row.task: row.metric for row in visible}
    found: dict[str, dict[str, dict[str, list[Point]]]] = {}
    for point in points:
        if metrics.get(point.task) == point.metric:
            found.setdefault(point.stage, {}).setdefault(point.task, {}).setdefault(point.arm, []).append(point)
    return found


def _point(key: tuple[str, str, str, str, int], seeds: Sequence[Estimate]) -> Point:
    stage, task, metric, arm, step = key
    mean, values = over_seeds(seeds), [seed.value for seed in seeds]
    return Point(arm, stage, task, metric, step, mean.value, mean.stderr, min(values), max(values), len(seeds))


def curve_table(points: Iterable[Point]) -> pl.DataFrame:
    """The points as a table (`CURVE_SCHEMA`)."""
    rows: list[Mapping[str, object]] = [{name: getattr(point, name) for name in CURVE_SCHEMA} for point in points]
    return pl.DataFrame(rows, schema=CURVE_SCHEMA, orient="row")
