"""What is seen of a training while it runs: progress every few seconds, and its figures at the end.

Times are told here and nowhere else: the training log's bytes are repeatable, so it holds none.
"""

import time
from collections import deque
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

from instpt_assets.training.log import LogLine

Progress = Callable[[Mapping[str, Any]], None]

PROGRESS_SECONDS = 10.0
"""So often progress is told."""
WINDOW_SECONDS = 60.0
"""Speed and the time left are those of the steps of about so many last seconds."""


class Monitor:
    """Follows one training; of several processes the first alone.

    Args:
        progress: told the figures of the last step every few seconds.
        num_steps: steps of the whole training.
        batch_tokens: tokens a step.
        first: whether this process has rank 0; the monitor of another one keeps silent.
        peak_tokens_per_second: the rate at which all processes would reach the peak of their accelerators, where it is known.
    """

    def __init__(
        self,
        progress: Progress,
        *,
        num_steps: int,
        batch_tokens: int,
        first: bool = True,
        peak_tokens_per_second: float | None = None,
    ) -> None:
        self._progress, self._first = progress, first
        self._num_steps, self._batch_tokens = num_steps, batch_tokens
        self._peak = peak_tokens_per_second
        self._recent: deque[tuple[float, float]] = deque()
        self._seconds = self._waited = 0.0
        self._num_recorded = 0
        self._held_out_loss: float | None = None
        self._told = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        """Nothing is open yet."""

    def record(self, line: LogLine, *, seconds: float, waited: float = 0.0) -> None:
        """Take a step that is done.

        Args:
            line: its line of the log.
            seconds: what the step took, from asking for its batch to the updated weights; without saving and held-out loss.
            waited: what of it was spent waiting for the batch.
        """
        if not self._first:
            return
        self._num_recorded += 1
        self._seconds += seconds
        self._waited += waited
        self._recent.append((seconds, waited))
        while len(self._recent) > 1 and sum(step for step, _ in self._recent) - self._recent[0][0] > WINDOW_SECONDS:
            self._recent.popleft()
        if line.step == self._num_steps or time.monotonic() - self._told >= PROGRESS_SECONDS:
            self._told = time.monotonic()
            self._progress(self._message(line))

    def finish(self) -> dict[str, Any]:
        """Statistics: tokens_per_second, training_seconds, data_wait_share; mfu where the peak is known."""
        rate = self._num_recorded * self._batch_tokens / max(self._seconds, 1e-9)
        return {
            "tokens_per_second": round(rate, 1),
            "training_seconds": round(self._seconds, 2),
            "data_wait_share": round(self._waited / max(self._seconds, 1e-9), 4),
            **({} if self._peak is None else {"mfu": round(rate / self._peak, 4)}),
        }

    def _message(self, line: LogLine) -> dict[str, Any]:
        seconds, waited = (max(1e-9, sum(step[column] for step in self._recent)) for column in (0, 1))
        rate = len(self._recent) * self._batch_tokens / seconds
        return {
            "kind": "progress",
            "step": line.step,
            "num_steps": self._num_steps,
            "loss": round(line.loss, 4),
            "learning_rate": line.learning_rate,
            "gradient_norm": round(line.gradient_norm, 4),
            "tokens_per_second": round(rate, 1),
            **({} if self._peak is None else {"mfu": round(rate / self._peak, 4)}),
            "data_wait_share": round(waited / seconds, 4),
            "seconds_left": round((self._num_steps - line.step) * self._batch_tokens / rate, 1),
        }
