"""The training log, a line a step; and, apart from it, what each step took: a repeated training gives the same log, byte for byte."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

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
    return [LogLine(**line) for line in _json_lines(folder / LOG)]


def append_times(times: Iterable[StepTime], folder: Path) -> None:
    """Add to `training_times.jsonl`."""
    with (folder / TIMES).open("a", encoding="utf-8") as stream:
        stream.writelines(json.dumps(asdict(time)) + "\n" for time in times)


def read_times(folder: Path) -> list[StepTime]:
    """What was appended, by step: of one that was done again after a kill, the last. A line that a kill has cut short is left out."""
    path = folder / TIMES
    by_step = {line["step"]: StepTime(**line) for line in _json_lines(path)} if path.exists() else {}
    return [by_step[step] for step in sorted(by_step)]


def _json_lines(path: Path) -> Iterable[dict[str, Any]]:
    with path.open(encoding="utf-8") as stream:
        for line in stream:
            if line.endswith("\n"):
                yield json.loads(line)
