"""The training log: a line a step, and its picture. Times are not in it: a repeated training gives the same bytes."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

LOG, PLOT = "training_log.jsonl", "loss.png"
_PLOTTED_POINTS = 2000


@dataclass(frozen=True)
class LogLine:
    """One optimizer step."""

    step: int
    """Steps done, this one included."""
    loss: float
    """Mean loss a token with loss, in nats, before the step's update."""
    learning_rate: float
    """Of this step."""
    gradient_norm: float
    """Before clipping."""
    tokens: int
    """Tokens seen so far, padding included."""
    loss_tokens: int
    """Tokens with loss in this step."""


def write_log(lines: Sequence[LogLine], folder: Path) -> None:
    """Write `training_log.jsonl`."""
    text = "".join(json.dumps(asdict(line)) + "\n" for line in lines)
    (folder / LOG).write_text(text, encoding="utf-8")


def read_log(folder: Path) -> list[LogLine]:
    """The lines that `write_log` wrote."""
    return [LogLine(**json.loads(line)) for line in (folder / LOG).read_text(encoding="utf-8").splitlines()]


def plot_loss(lines: Sequence[LogLine], path: Path) -> None:
    """Draw loss and learning rate over tokens as a PNG under 100 kB."""
    from matplotlib.figure import Figure

    shown = lines[:: -(-len(lines) // _PLOTTED_POINTS)]
    tokens = [line.tokens for line in shown]
    figure = Figure(figsize=(7, 3.5), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(tokens, [line.loss for line in shown], color="#3465a4", linewidth=1.2)
    axes.set(xlabel="tokens", ylabel="loss (nats a token)")
    axes.grid(alpha=0.3)
    rates = axes.twinx()
    rates.plot(tokens, [line.learning_rate for line in shown], color="#999999", linewidth=0.8, linestyle="--")
    rates.set(ylabel="learning rate (dashed)", ylim=(0, None))
    figure.savefig(path, dpi=90, metadata={"Software": None})
