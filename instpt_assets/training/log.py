"""The training log, a line a step; and, apart from it, what each step took: a repeated training gives the same log, byte for byte."""

import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

LOG, TIMES = "training_log.jsonl", "training_times.jsonl"
LOGS = "logs"
"""Folder of an artifact for what is kept, but is no content, such as times."""


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
    held_out_loss: float | None = None
    """Mean loss a token of the held-out sequences after the step's update; only where it was computed."""


@dataclass(frozen=True)
class StepTime:
    """What a step took."""

    step: int
    """As in the log."""
    seconds: float
    """From asking for its batch to the updated weights."""
    waited: float
    """Seconds of it spent waiting for the batch."""


def write_log(lines: Sequence[LogLine], folder: Path) -> None:
    """Write `training_log.jsonl`; a held-out loss stands only in lines that have one."""
    with (folder / LOG).open("w", encoding="utf-8") as stream:
        for line in lines:
            stream.write(json.dumps({name: value for name, value in asdict(line).items() if value is not None}) + "\n")


def read_log(folder: Path) -> list[LogLine]:
    """The lines that `write_log` wrote."""
    return [LogLine(**json.loads(line)) for line in (folder / LOG).read_text(encoding="utf-8").splitlines()]


def append_times(times: Iterable[StepTime], folder: Path) -> None:
    """Add to `training_times.jsonl`."""
    with (folder / TIMES).open("a", encoding="utf-8") as stream:
        stream.write("".join(json.dumps(asdict(time)) + "\n" for time in times))


def cut_times(folder: Path, num_steps: int) -> None:
    """Leave in `training_times.jsonl` what it says of the first steps, so that a training goes on behind them."""
    times = [time for time in read_times(folder) if time.step <= num_steps]
    (folder / TIMES).unlink(missing_ok=True)
    append_times(times, folder)


def read_times(folder: Path) -> list[StepTime]:
    """What was appended, by step: of one that was done again after a kill, the last. A line that a kill has cut short is left out."""
    path = folder / TIMES
    by_step: dict[int, StepTime] = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        with suppress(ValueError, TypeError):
            time = StepTime(**json.loads(line))
            by_step[time.step] = time
    return [by_step[step] for step in sorted(by_step)]
