"""A training's figures as TensorBoard event files, live while it runs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from instpt_assets.training.log import LogLine

FOLDER = "tensorboard"
_FLUSH_SECONDS = 10


class EventFiles:
    """Writes event files with torch's own writer; what is written can be looked at at once.

    Args:
        folder: where. Files of the same training before it was killed may lie there: what they say of steps that are done again is hidden.
        lines: the log of the steps before; it is written too where no event file is left of them.

    Raises:
        ImportError: there is no package tensorboard.
    """

    def __init__(self, folder: Path, lines: Sequence[LogLine] = ()) -> None:
        from torch.utils.tensorboard import SummaryWriter

        unseen = [] if any(folder.glob("events.*")) else lines
        first_step = lines[-1].step + 1 if lines else 1
        self._writer: Any = SummaryWriter(folder, purge_step=None if unseen else first_step, flush_secs=_FLUSH_SECONDS)
        for line in unseen:
            self.record(line.step, figures(line))

    def record(self, step: int, values: Mapping[str, float]) -> None:
        """Add the figures of a step, by name."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()


def figures(line: LogLine) -> dict[str, float]:
    """A log line's figures by the names that TensorBoard and Weights & Biases show; what stands before the slash groups them."""
    named = {"loss/training": line.loss, "optimizer/learning_rate": line.learning_rate, "optimizer/gradient_norm": line.gradient_norm}
    return named if line.held_out_loss is None else {**named, "loss/held_out": line.held_out_loss}
