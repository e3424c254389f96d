"""The arms side by side: from score tables to one row an arm, stage, task and metric."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from instpt_assets.evaluation.statistics import Estimate, difference, over_seeds, pair_examples

STAGES = {"pretrained": "After pre-training", "instruction_tuned": "After instruction tuning"}
"""Stages in order, and how people call them."""

_SHOWN = ("acc_norm", "acc", "exact_match", "bits_per_byte")  # the metric that tables and plots show is the first that the task has
_LAST = "/checkpoint"
_LOWER_IS_BETTER = ("bits_per_byte", "byte_perplexity", "word_perplexity", "perplexity", "brier_score")


@dataclass(frozen=True)
class Compared:
    """One metric of one task for one arm at one stage."""

    arm: str
    stage: str
    """`pretrained` or `instruction_tuned`."""
    task: str
    metric: str
    value: float
    stderr: float | None
    difference: float | None
    """To the baseline arm at the same stage; None for the baseline itself, and where it has no such score."""
    difference_stderr: float | None
    num_seeds: int
    num_fewshot: int
    num_examples: int
    by_seed: tuple[float, ...]
    """Values in the order of seeds."""

    @property
    def lower_is_better(self) -> bool:
        """Whether smaller values of the metric are better."""
        return self.metric in _LOWER_IS_BETTER

    @property
    def is_share(self) -> bool:
        """Whether the metric is a share of right answers, shown in per cent."""
        return self.metric.split("/")[0] in ("acc", "acc_norm", "exact_match", "f1")

    @property
    def is_clear(self) -> bool:
        """Whether the difference is more than twice its standard error."""
        return self.difference is not None and bool(self.difference_stderr) and abs(self.difference) > 2 * (self.difference_stderr or 0.0)


def compare(score_tables: Iterable[Path], arms: Sequence[str]) -> list[Compared]:
    """Means over seeds and differences to the first arm, of every arm's last checkpoints.

    Args:
        score_tables: main tables of all `eval_scores` and `instruction_tuned_eval_scores`; per-example records are read from
            `examples.parquet` beside each, where there is one.
        arms: the arms in order; the first is the baseline.

    Returns:
        Rows in the order of stage, task, metric, arm.

    Raises:
        ValueError: there are no scores, a table names another arm, or a task's versions differ (their scores do not compare).
    """
    scores: dict[tuple[str, str, str], dict[str, dict[int, dict[str, object]]]] = {}
    examples: dict[tuple[str, str, str], dict[str, dict[int, Mapping[str, tuple[float, float]]]]] = {}
    for path in sorted(score_tables):
        table = pl.read_parquet(path).filter(pl.col("checkpoint").str.ends_with(_LAST))
        for row in table.iter_rows(named=True):
            if row["arm"] not in arms:
                raise ValueError(f"{path}: arm '{row['arm']}' is none of {', '.join(arms)}")
            key = (stage_of(row["checkpoint"]), row["task"], row["metric"])
            scores.setdefault(key, {}).setdefault(row["arm"], {})[row["seed"]] = row
        if table.height and path.with_name("examples.parquet").exists():
            arm, seed = table["arm"][0], table["seed"][0]
            for key, records in _examples(path.with_name("examples.parquet")).items():
                examples.setdefault(key, {}).setdefault(arm, {})[seed] = records
    if not scores:
        raise ValueError("no scores of last checkpoints: materialize eval_scores first")
    compared = []
    for key in sorted(scores, key=lambda k: (list(STAGES).index(k[0]), k[1:])):
        by_arm = scores[key]
        versions = {str(row["task_version"]) for seeds in by_arm.values() for row in seeds.values()}
        if len(versions) > 1:
            raise ValueError(
                f"task {key[1]}: the arms were scored on different versions ({', '.join(sorted(versions))}); materialize all scores again"
            )
        compared += [_compare(key, arm, arms[0], by_arm, examples.get(key, {})) for arm in arms if arm in by_arm]
    return compared


def shown(compared: Iterable[Compared], metrics: Mapping[str, str]) -> list[Compared]:
    """One metric a task, for tables and plots: the one that `metrics` names, else the first of the usual ones.

    Raises:
        ValueError: a task has no metric of the name that `metrics` gives.
    """
    rows = list(compared)
    available: dict[str, set[str]] = {}
    for row in rows:
        available.setdefault(row.task, set()).add(row.metric)
    for task, metric in metrics.items():
        if metric not in available.get(task, {metric}):
            raise ValueError(
                f"evaluation.harness_tasks: {task} has no finite scores of metric '{metric}': name one of {', '.join(sorted(available[task]))}, or none"
            )
    chosen = {task: metrics.get(task) or next((m for m in _SHOWN if m in found), min(found)) for task, found in available.items()}
    return [row for row in rows if row.metric == chosen[row.task]]


def _compare(
    key: tuple[str, str, str],
    arm: str,
    baseline: str,
    by_arm: Mapping[str, Mapping[int, Mapping[str, object]]],
    examples: Mapping[str, Mapping[int, Mapping[str, tuple[float, float]]]],
) -> Compared:
    rows = [by_arm[arm][seed] for seed in sorted(by_arm[arm])]
    estimate = over_seeds(_estimates(rows))
    gap: Estimate | None = None
    if arm != baseline and baseline in by_arm:
        complete = examples.get(arm, {}).keys() == by_arm[arm].keys() and examples.get(baseline, {}).keys() == by_arm[baseline].keys()
        paired = pair_examples([*examples[arm].values()], [*examples[baseline].values()]) if complete else None
        gap = difference(_estimates(rows), _estimates(by_arm[baseline].values()), paired)
    stage, task, metric = key
    return Compared(
        arm=arm,
        stage=stage,
        task=task,
        metric=metric,
        value=estimate.value,
        stderr=estimate.stderr,
        difference=None if gap is None else gap.value,
        difference_stderr=None if gap is None else gap.stderr,
        num_seeds=len(rows),
        num_fewshot=int(str(rows[0]["num_fewshot"])),
        num_examples=int(str(rows[0]["num_examples"])),
        by_seed=tuple(e.value for e in _estimates(rows)),
    )


def _estimates(rows: Iterable[Mapping[str, object]]) -> list[Estimate]:
    return [Estimate(float(str(row["value"])), None if row["stderr"] is None else float(str(row["stderr"]))) for row in rows]


def stage_of(checkpoint: str) -> str:
    """The stage of a checkpoint as score tables name it, `pretrained` or `instruction_tuned`."""
    return checkpoint.split("_checkpoint/")[0]


def is_last(checkpoint: str) -> bool:
    """Whether it is the one at the end of its stage."""
    return checkpoint.endswith(_LAST)


def _examples(path: Path) -> dict[tuple[str, str, str], dict[str, tuple[float, float]]]:
    columns = ["checkpoint", "task", "example_id", "metric", "score", "weight"]
    found: dict[tuple[str, str, str], dict[str, tuple[float, float]]] = {}
    rows = pl.read_parquet(path, columns=columns).filter(pl.col("checkpoint").str.ends_with(_LAST))
    for checkpoint, task, example_id, metric, score, weight in rows.select(columns).iter_rows():
        found.setdefault((stage_of(checkpoint), task, metric), {})[example_id] = (score, weight)
    return found
