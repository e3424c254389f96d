"""Plot of the scores along a training; matplotlib is imported where it draws."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from instpt_assets.evaluation.comparison import Compared
from instpt_assets.evaluation.curves import Point
from instpt_assets.evaluation.plots import bound_shares

_COLOURS = ("#6b7785", "#d07a2d", "#2f5d8a", "#3f8f5f", "#8a4f9e", "#b3372f", "#7a6a2f", "#2f8a8a")
_MARKERS = "osD^vPX*"
_MAX_COLUMNS = 3


def plot_curves(
    tasks: Mapping[str, Mapping[str, Sequence[Point]]], visible: Sequence[Compared], *, arms: Sequence[str], title: str, path: Path
) -> None:
    """One panel a task: a line an arm, the mean over its seeds, in a band from the lowest to the highest seed.

    Args:
        tasks: points by task and arm, in the order of steps.
        visible: tells what the tasks' metrics mean.
        arms: the arms in order; each keeps its colour.
        title: names the training, under the horizontal axes.
        path: the PNG to write; the same points give the same bytes on the same machine.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    about = {row.task: row for row in visible}
    columns = min(_MAX_COLUMNS, len(tasks))
    lines = math.ceil(len(tasks) / columns)
    figure = Figure(figsize=(max(5.0, 3.6 * columns), 2.8 * lines + 0.5), dpi=95 if lines < 3 else 70, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(lines, columns, squeeze=False)
    handles = {}
    for panel, (task, by_arm) in zip(grid.flat, tasks.items(), strict=False):
        metric = about[task]
        scale = 100.0 if metric.is_share else 1.0
        for number, arm in enumerate(arms):
            points = by_arm.get(arm, ())
            steps = [point.step for point in points]
            colour, marker = _COLOURS[number % len(_COLOURS)], _MARKERS[number % len(_MARKERS)]
            panel.fill_between(
                steps,
                [scale * point.lowest for point in points],
                [scale * point.highest for point in points],
                color=colour,
                alpha=0.2,
                lw=0,
            )
            (line,) = panel.plot(steps, [scale * point.value for point in points], color=colour, marker=marker, ms=4.5, lw=1.6)
            if points:
                handles[arm] = line
        panel.margins(y=0.12)
        panel.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
        if metric.is_share:
            bound_shares(panel)
        better = "lower is better ↓" if metric.lower_is_better else "higher is better ↑"
        panel.set_title(task.replace("_", " "), fontsize=10.5, fontweight="bold", loc="left")
        panel.set_ylabel(f"{metric.metric.replace('_', ' ')}{' (%)' if metric.is_share else ''}\n{better}", fontsize=8.5)
        panel.set_xlabel(f"steps of {title}", fontsize=8.5)
        panel.tick_params(labelsize=8.5)
        panel.grid(color="#e3e8ee", linewidth=0.8)
        panel.set_axisbelow(True)
        panel.spines[["top", "right"]].set_visible(False)
    for panel in list(grid.flat)[len(tasks) :]:
        panel.set_visible(False)
    figure.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=min(4, len(handles)), frameon=False, fontsize=9)
    figure.savefig(path, metadata={"Software": None})
