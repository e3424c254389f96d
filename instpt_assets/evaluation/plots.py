"""Plots of the comparison; matplotlib is imported where it draws."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from instpt_assets.evaluation.comparison import STAGES, Compared

_COLOURS = {"pretrained": "#2f5d8a", "instruction_tuned": "#d07a2d"}
_MARKERS = {"pretrained": "o", "instruction_tuned": "D"}
_MAX_COLUMNS = 3


def plot_scores(rows: Sequence[Compared], *, arms: Sequence[str], path: Path) -> None:
    """One panel a task: each arm's mean with its standard error, its seeds as small dots, both stages side by side.

    Args:
        rows: one metric a task.
        arms: the arms in order, along the horizontal axis.
        path: the PNG to write; the same rows give the same bytes on the same machine.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    tasks = list(dict.fromkeys(row.task for row in rows))
    present = [arm for arm in arms if any(row.arm == arm for row in rows)]
    stages = [stage for stage in STAGES if any(row.stage == stage for row in rows)]
    columns = min(_MAX_COLUMNS, len(tasks))
    lines = math.ceil(len(tasks) / columns)
    figure = Figure(figsize=(max(4.6, 3.5 * columns), 2.75 * lines + 0.55), dpi=110 if lines < 3 else 75, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(lines, columns, squeeze=False)
    for panel, task in zip(grid.flat, tasks, strict=False):
        of_task = [row for row in rows if row.task == task]
        scale = 100.0 if of_task[0].is_share else 1.0
        for number, stage in enumerate(stages):
            shift = 0.24 * (number - (len(stages) - 1) / 2)
            for row in (r for r in of_task if r.stage == stage):
                place = present.index(row.arm) + shift
                if len(row.by_seed) > 1:
                    panel.plot(
                        [place + 0.09] * len(row.by_seed), [scale * v for v in row.by_seed], ".", color=_COLOURS[stage], alpha=0.45, ms=5
                    )
                error = None if row.stderr is None else scale * row.stderr
                panel.errorbar(
                    place, scale * row.value, yerr=error, fmt=_MARKERS[stage], ms=6, color=_COLOURS[stage], capsize=3, elinewidth=1.4
                )
        better = "lower is better ↓" if of_task[0].lower_is_better else "higher is better ↑"
        panel.set_title(task.replace("_", " "), fontsize=10.5, fontweight="bold", loc="left")
        unit = " (%)" if of_task[0].is_share else ""
        panel.set_ylabel(f"{of_task[0].metric.replace('_', ' ')}{unit}\n{better}", fontsize=8.5)
        panel.set_xticks(range(len(present)), present, fontsize=9, rotation=0 if len(present) < 5 else 35)
        panel.set_xlim(-0.5, len(present) - 0.5)
        panel.margins(y=0.18)
        if of_task[0].is_share:
            bound_shares(panel)
        panel.tick_params(axis="y", labelsize=8.5)
        panel.grid(axis="y", color="#e3e8ee", linewidth=0.8)
        panel.set_axisbelow(True)
        panel.spines[["top", "right"]].set_visible(False)
    for panel in list(grid.flat)[len(tasks) :]:
        panel.set_visible(False)
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=_COLOURS[s], marker=_MARKERS[s], linestyle="", label=f"{STAGES[s]} (± one standard error)") for s in stages
    ]
    seeds = max(row.num_seeds for row in rows)
    if seeds > 1:
        handles.append(Line2D([], [], color="#777777", marker=".", linestyle="", alpha=0.6, label="single seeds"))
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles), frameon=False, fontsize=9)
    figure.savefig(path, metadata={"Software": None})


def bound_shares(panel: Any) -> None:
    """Of shares in per cent: none is negative, and where all are alike a hundredth of a point should not look like a difference."""
    low, high = panel.get_ylim()
    panel.set_ylim(max(0.0, low), max(high, max(0.0, low) + 1.0))
