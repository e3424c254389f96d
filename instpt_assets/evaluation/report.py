"""The comparison report: `data-00000.parquet`, `report.md`, `report.html` (one self-contained page) and `scores.png`.

Where checkpoints were scored along a training, also `scores_over_pretraining.png` and `scores_over_instruction_tuning.png`, and their points in
`curves.parquet`.
"""

import base64
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import polars as pl
from jinja2 import Environment, FileSystemLoader

from instpt_assets.evaluation import statistics
from instpt_assets.evaluation.comparison import STAGES, Compared, compare, shown
from instpt_assets.evaluation.curve_plots import plot_curves
from instpt_assets.evaluation.curves import curve_table, curves, shown_points
from instpt_assets.evaluation.plots import plot_scores

CURVES = {"pretrained": "scores_over_pretraining.png", "instruction_tuned": "scores_over_instruction_tuning.png"}
"""Plots of the scores along each stage's training."""

COMPARISON_SCHEMA = pl.Schema(
    {
        "arm": pl.String,
        "stage": pl.String,
        "task": pl.String,
        "metric": pl.String,
        "value": pl.Float64,
        "stderr": pl.Float64,
        "difference": pl.Float64,
        "difference_stderr": pl.Float64,
        "num_seeds": pl.Int64,
    }
)


def build_report(
    score_tables: Sequence[Path], *, arms: Sequence[str], out: Path, metrics: Mapping[str, str] = MappingProxyType({})
) -> dict[str, Any]:
    """Write the report over all arms.

    Args:
        score_tables: main tables of all `eval_scores` and `instruction_tuned_eval_scores`.
        arms: the arms in order; the first is the baseline.
        out: an existing folder.
        metrics: the metric that tables and plots show of a task, where it is not the usual one.

    Returns:
        num_rows, and how many arms, tasks, clear differences (beyond two standard errors) and points of curves there are.

    Raises:
        ValueError: the tables cannot be compared; the message says why.
    """
    compared = compare(score_tables, arms)
    rows = [{name: getattr(row, name) for name in COMPARISON_SCHEMA} for row in compared]
    pl.DataFrame(rows, schema=COMPARISON_SCHEMA, orient="row").write_parquet(out / "data-00000.parquet", compression="zstd")
    visible = shown(compared, metrics)
    plot_scores(visible, arms=arms, path=out / "scores.png")
    points = curves(score_tables, arms)
    drawn = shown_points(points, visible)
    for stage, tasks in drawn.items():
        plot_curves(tasks, visible, arms=arms, title=STAGES[stage].removeprefix("After "), path=out / CURVES[stage])
    if points:
        curve_table(points).write_parquet(out / "curves.parquet", compression="zstd")
    (out / "table.txt").write_text(comparison_table(visible, arms) + "\n", encoding="utf-8")
    (out / "report.md").write_text(_markdown(visible, arms, drawn), encoding="utf-8")
    (out / "report.html").write_text(_page(visible, compared, arms, drawn, out), encoding="utf-8")
    return {
        "num_rows": len(compared),
        "arms": len({row.arm for row in compared}),
        "tasks": len({row.task for row in compared}),
        "clear_differences": sum(row.is_clear for row in visible),
        "curve_points": len(points),
    }


def comparison_table(visible: Sequence[Compared], arms: Sequence[str]) -> str:
    """The report's table for a terminal: one block a stage, arms as rows, tasks as columns."""
    blocks = []
    for stage, tasks in _stages(visible):
        cells = [["", *(f"{task} {'↓' if found[0].lower_is_better else '↑'}" for task, found in tasks.items())]]
        cells += [[arm, *(next((format_value(r) for r in found if r.arm == arm), "") for found in tasks.values())] for arm in arms]
        widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
        lines = [
            "  ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True))) for line in cells
        ]
        blocks.append("\n".join([STAGES[stage], *lines]))
    return "\n\n".join([*blocks, "Shares in per cent; ± one standard error; ↑ higher is better, ↓ lower is better."])


def format_value(row: Compared) -> str:
    """The value with its standard error: shares in per cent, everything else as it is."""
    return _with_error(row, row.value, row.stderr, sign="")


def format_difference(row: Compared) -> str:
    """The difference to the baseline with its standard error, in the value's unit; empty if there is none."""
    return "" if row.difference is None else _with_error(row, row.difference, row.difference_stderr, sign="+")


def _with_error(row: Compared, value: float, stderr: float | None, *, sign: str) -> str:
    scale, digits = (100, 1) if row.is_share else (1, 3)
    text = f"{scale * value:{sign}.{digits}f}"
    return text if stderr is None else f"{text} ± {scale * stderr:.{digits}f}"


def _stages(rows: Sequence[Compared]) -> list[tuple[str, dict[str, list[Compared]]]]:
    """For each stage that has scores: its rows by task."""
    found = []
    for stage in STAGES:
        tasks: dict[str, list[Compared]] = {}
        for row in rows:
            if row.stage == stage:
                tasks.setdefault(row.task, []).append(row)
        if tasks:
            found.append((stage, tasks))
    return found


def _markdown(rows: Sequence[Compared], arms: Sequence[str], drawn: Collection[str]) -> str:
    lines = ["# Comparison of the arms", ""]
    for stage, tasks in _stages(rows):
        heads = [f"{task} ({_about(found[0])})" for task, found in tasks.items()]
        lines += [f"## {STAGES[stage]}", "", f"| arm | {' | '.join(heads)} |", "|---|" + "---:|" * len(heads)]
        for arm in arms:
            found = [next((row for row in of_task if row.arm == arm), None) for of_task in tasks.values()]
            if any(found):
                lines.append(f"| **{arm}** | {' | '.join(format_value(row) if row else '' for row in found)} |")
        differing = [arm for arm in arms[1:] if any(row.arm == arm and row.difference is not None for row in rows if row.stage == stage)]
        if differing:
            lines += ["", f"Difference to `{arms[0]}` (bold: more than two standard errors):", ""]
            lines += [f"| arm | {' | '.join(tasks)} |", "|---|" + "---:|" * len(tasks)]
        for arm in differing:
            found = [next((row for row in of_task if row.arm == arm), None) for of_task in tasks.values()]
            cells = [("**{}**" if row.is_clear else "{}").format(format_difference(row)) if row else "" for row in found]
            lines.append(f"| **{arm}** | {' | '.join(cells)} |")
        lines.append("")
    lines += [f"{STAGES[stage].replace('After', 'Scores along')}: `{CURVES[stage]}`, its points in `curves.parquet`.\n" for stage in drawn]
    return "\n".join(
        [*lines, "Shares in per cent; ± one standard error over examples and seeds; ↑ higher is better, ↓ lower is better.", ""]
    )


def _about(row: Compared) -> str:
    shots = f", {row.num_fewshot}-shot" if row.num_fewshot else ""
    return f"{row.metric} {'↓' if row.lower_is_better else '↑'}, n = {row.num_examples}{shots}"


def _page(visible: Sequence[Compared], compared: Sequence[Compared], arms: Sequence[str], drawn: Collection[str], out: Path) -> str:
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    stages = [
        {
            "title": STAGES[stage],
            "tasks": [{"name": task, "about": _about(found[0])} for task, found in tasks.items()],
            "rows": [
                {"arm": arm, "cells": [_cell(next((r for r in found if r.arm == arm), None), found) for found in tasks.values()]}
                for arm in arms
                if any(r.arm == arm for found in tasks.values() for r in found)
            ],
        }
        for stage, tasks in _stages(visible)
    ]
    every = [(row, format_value(row), format_difference(row)) for row in compared]
    return environment.get_template("report.html.j2").render(
        stages=stages,
        every=every,
        baseline=arms[0],
        num_arms=len({row.arm for row in visible}),
        num_seeds=max(row.num_seeds for row in visible),
        plot=_inline(out / "scores.png"),
        curves=[(STAGES[stage].replace("After", "Scores along"), _inline(out / CURVES[stage])) for stage in drawn],
        formulas=[part.replace("**", "").strip() for part in (statistics.__doc__ or "").split("\n\n")[1:]],
    )


def _inline(picture: Path) -> str:
    return base64.b64encode(picture.read_bytes()).decode()


def _cell(row: Compared | None, rivals: Sequence[Compared]) -> dict[str, Any]:
    if row is None:
        return {"value": "", "difference": "", "verdict": "", "best": False}
    best = min(rivals, key=lambda r: r.value) if row.lower_is_better else max(rivals, key=lambda r: r.value)
    better = row.difference is not None and (row.difference < 0) == row.lower_is_better
    verdict = ("better" if better else "worse") if row.is_clear else ""
    return {
        "value": format_value(row),
        "difference": format_difference(row),
        "verdict": verdict,
        "best": row.value == best.value and len(rivals) > 1,
    }
