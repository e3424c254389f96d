"""The picture of a training: losses and learning rate over tokens, and below them gradient norm and speed."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from instpt_assets.training.log import LogLine, StepTime

PLOT = "training.png"

_POINTS = 400
_WINDOWS = 60
"""Smoothing takes the mean over one of so many parts of the training."""
_LOSS, _HELD_OUT, _GREY, _NORM, _SPEED = "#2f5d8a", "#d07a2d", "#8a8a8a", "#5b8a3c", "#8a4f8a"

Floats = npt.NDArray[np.float64]


def plot_training(lines: Sequence[LogLine], times: Sequence[StepTime], path: Path) -> None:
    """Draw a training as a PNG under 100 kB; where matplotlib is not installed, nothing: the log holds all that it shows.

    Args:
        lines: its log.
        times: what its steps took, as far as it is known.
        path: where.
    """
    if find_spec("matplotlib") is None:
        return
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter
    from PIL import Image

    figure = Figure(figsize=(7.4, 5.6), dpi=90, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    losses, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    tokens = np.array([line.tokens for line in lines], dtype=np.float64)

    loss = np.array([line.loss for line in lines])
    _draw(losses, tokens, loss, _LOSS, "training loss")
    held_out = [(line.tokens, line.held_out_loss) for line in lines if line.held_out_loss is not None]
    if held_out:
        losses.plot(*zip(*held_out, strict=True), color=_HELD_OUT, marker="o", markersize=3.5, linewidth=1.4, label="held-out loss")
    _limit(losses, loss, [value for _, value in held_out])
    losses.set(ylabel="loss (nats a token)")
    rates = losses.twinx()
    rates.plot(tokens, [line.learning_rate for line in lines], color=_GREY, linewidth=1, linestyle="--", label="learning rate")
    rates.set(ylabel="learning rate", ylim=(0, None))
    rates.yaxis.set_major_formatter(FuncFormatter(lambda rate, _: f"{rate:.2g}"))

    norm = np.array([line.gradient_norm for line in lines])
    _draw(below, tokens, norm, _NORM, "gradient norm")
    _limit(below, norm, [])
    below.set(xlabel="tokens", ylabel="gradient norm")
    below.xaxis.set_major_formatter(FuncFormatter(_short))
    places, speed = _speed(lines, times)
    speeds = below.twinx()
    if len(speed):
        _draw(speeds, places, speed, _SPEED, "tokens per second")
        speeds.set(ylabel="tokens per second", ylim=(0, 1.25 * float(np.quantile(speed, 0.99))))
        speeds.yaxis.set_major_formatter(FuncFormatter(_short))
    else:
        speeds.set_yticks([])

    for left, right in ((losses, rates), (below, speeds)):
        left.grid(color="#e3e8ee", linewidth=0.8)
        left.set_axisbelow(True)
        handles = [handle for axes in (left, right) for handle in axes.get_legend_handles_labels()[0]]
        left.legend(handles=handles, loc="lower right", bbox_to_anchor=(1, 1), ncols=len(handles), fontsize=8.5, frameon=False)
        for axes in (left, right):
            axes.spines["top"].set_visible(False)
            axes.tick_params(labelsize=8.5)
    canvas.draw()
    picture = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    picture.quantize(128).save(path, optimize=True)  # noise in full colours would take too much room in the UI


def _draw(axes: Any, places: Floats, values: Floats, colour: str, label: str) -> None:
    """The values as they are, pale, and smoothed before them; of few values only the line itself."""
    window = len(values) // _WINDOWS
    stride = -(-len(values) // _POINTS)
    if window > 1:
        axes.plot(places[::stride], values[::stride], color=colour, linewidth=0.7, alpha=0.3)
    axes.plot(
        places[::stride],
        smoothed(values, window)[::stride],
        color=colour,
        linewidth=1.5,
        label=label,
        marker="" if len(values) > 1 else ".",
    )


def _short(number: float, _: object) -> str:
    """`500M`, `1.5B`: as people speak of tokens."""
    for unit, name in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= unit:
            return f"{number / unit:.3g}{name}"
    return f"{number:.3g}"


def smoothed(values: Floats, window: int) -> Floats:
    """Mean of each value and its neighbours, `window` together, fewer at the ends."""
    if window < 2:
        return values
    half = window // 2
    sums = np.concatenate([[0.0], np.cumsum(values)])
    positions = np.arange(len(values))
    first, behind = np.maximum(positions - half, 0), np.minimum(positions + half + 1, len(values))
    means: Floats = (sums[behind] - sums[first]) / (behind - first)
    return means


def _limit(axes: Any, values: Floats, others: Sequence[float]) -> None:
    """Leave outliers, such as those of the first steps, out of the picture, so that the rest can be read."""
    shown = np.concatenate([values[len(values) // 50 :], others])
    low, high = float(shown.min()), max(float(np.quantile(shown, 0.995)), *others, -np.inf)
    margin = 0.06 * (high - low) or 0.06 * abs(high) or 1.0
    axes.set_ylim(max(low - margin, 0.0) if low >= 0 else low - margin, high + margin)


def _speed(lines: Sequence[LogLine], times: Sequence[StepTime]) -> tuple[Floats, Floats]:
    """Tokens seen [n] and tokens per second [n] of the steps whose time is known."""
    at = {line.step: line.tokens for line in lines}
    known = [time for time in times if time.step in at and time.seconds > 0]
    places = np.array([at[time.step] for time in known], dtype=np.float64)
    each = lines[0].tokens / lines[0].step if lines else 0.0
    return places, np.array([each / time.seconds for time in known])
