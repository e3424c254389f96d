"""The preview's plot of a quality page; matplotlib is imported where it draws."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from instpt_assets.augmentation.quality_charts import Bar, Chart

_SHOWN = ("layouts", "categories", "pairs_per_passage", "response_words", "coverage", "scenarios")
_MIN_BARS, _MAX_BARS = 4, 14
_ACCENT, _INK, _SOFT, _MARK = "#5b9bb8", "#1d2733", "#5d6b7a", "#c2571a"


def plot_charts(charts: Sequence[Chart], path: Path) -> None:
    """Draw the charts as one PNG; the same charts give the same bytes on the same machine."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = sorted((chart for chart in charts if chart.name in _SHOWN), key=lambda chart: _SHOWN.index(chart.name))
    if not shown:
        return
    columns = min(2, len(shown))
    lines = -(-len(shown) // columns)
    heights = [max(_height(chart) for chart in shown[line * columns : (line + 1) * columns]) for line in range(lines)]
    figure = Figure(figsize=(5.0 * columns, sum(heights)), dpi=80, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(lines, columns, squeeze=False, height_ratios=heights)
    for panel, chart in zip(grid.flat, shown, strict=False):
        _draw(panel, chart)
    for panel in list(grid.flat)[len(shown) :]:
        panel.set_visible(False)
    figure.savefig(path, metadata={"Software": None})


def _height(chart: Chart) -> float:
    return 2.4 if chart.is_histogram else 0.9 + 0.23 * max(_MIN_BARS, len(_cut(chart.bars)))


def _cut(bars: Sequence[Bar]) -> list[Bar]:
    """The first bars, the others added up."""
    if len(bars) <= _MAX_BARS:
        return list(bars)
    rest = bars[_MAX_BARS - 1 :]
    return [*bars[: _MAX_BARS - 1], Bar(f"{len(rest)} others", sum(bar.share for bar in rest), None)]


def _draw(panel: Any, chart: Chart) -> None:
    bars = list(chart.bars) if chart.is_histogram else _cut(chart.bars)
    places = list(range(len(bars)))
    shares = [100 * bar.share for bar in bars]
    panel.set_title(chart.title, fontsize=10.5, fontweight="bold", loc="left", color=_INK)
    if chart.mark:
        panel.set_title(f"line: {chart.mark}", fontsize=8, loc="right", color=_MARK)
    if chart.is_histogram:
        panel.bar(places, shares, color=_ACCENT, width=0.78)
        panel.set_xticks(places, [bar.label for bar in bars], fontsize=7.5)
        panel.set_ylabel("%", fontsize=8.5, color=_SOFT)
        panel.grid(axis="y", color="#e3e8ee", linewidth=0.8)
    else:
        panel.barh(places, shares, color=_ACCENT, height=0.68)
        marks = [(100 * bar.mark, place) for place, bar in enumerate(bars) if bar.mark is not None]
        if marks:
            panel.vlines(
                *zip(*((x,) for x, _ in marks), strict=True),
                [p - 0.42 for _, p in marks],
                [p + 0.42 for _, p in marks],
                color=_MARK,
                lw=2,
            )
        panel.set_yticks(places, [bar.label for bar in bars], fontsize=8.5)
        panel.set_ylim(max(len(bars), _MIN_BARS) - 0.5, -0.5)  # the first bar on top, and few bars not thicker than many
        panel.set_xlabel("%", fontsize=8.5, color=_SOFT)
        panel.grid(axis="x", color="#e3e8ee", linewidth=0.8)
        for place, (bar, share) in enumerate(zip(bars, shares, strict=True)):
            panel.annotate(f" {share:.1f}", (max(share, 100 * (bar.mark or 0)), place), va="center", fontsize=7.5, color=_SOFT)
        panel.margins(x=0.12)
        if chart.is_of_wholes:
            panel.set_xlim(0, 112)  # as far as margins reach behind 100
            panel.set_xticks(range(0, 101, 20))
    panel.tick_params(colors=_INK, length=0)
    panel.set_axisbelow(True)
    panel.spines[["top", "right", "left"]].set_visible(False)
