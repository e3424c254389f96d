"""What is seen of a training while it runs: progress every few seconds, TensorBoard, Weights & Biases, and its figures at the end.

Times are told here and nowhere else: the training log's bytes are repeatable, so it holds none.
"""

import shutil
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch

from instpt_assets.training.event_files import FOLDER, EventFiles, figures
from instpt_assets.training.log import LOGS, LogLine, StepTime, append_times, cut_times, read_times
from instpt_assets.training.model_card import Card
from instpt_assets.training.weights_and_biases import WeightsAndBiases, is_set_up

Progress = Callable[[Mapping[str, Any]], None]

PROGRESS_SECONDS = 10.0
"""So often progress is told."""
WORTH_WATCHING_SECONDS = 60.0
"""Of a training that has so long to go it is told how to watch it in TensorBoard."""
WINDOW_SECONDS = 60.0
"""Speed and the time left are those of the steps of about so many last seconds."""
_STARTUP_STEPS = 3
"""A process compiles and warms up in its first steps: they say nothing of its speed."""
_RECORDED = 10_000
"""At most about so many steps of a training are recorded, however many it has."""


class Monitor:
    """Follows one training; of several processes the first alone.

    Use it as a context, and `finish` behind it.

    Args:
        progress: told the figures of the last step every few seconds.
        num_steps: steps of the whole training.
        batch_tokens: tokens a step.
        first: whether this process has rank 0; the monitor of another one keeps silent.
        peak_tokens_per_second: the rate at which all processes would reach the peak of their accelerators, where it is known.
        lines: of the steps that are done already.
        out: the training's folder; event files and times lie in `logs/` there in the end.
        state_folder: where they lie until then, so that a training that goes on after a kill has them; by default at once in `out`.
        card: names the training.
    """

    def __init__(
        self,
        progress: Progress,
        *,
        num_steps: int,
        batch_tokens: int,
        first: bool = True,
        peak_tokens_per_second: float | None = None,
        lines: Sequence[LogLine] = (),
        out: Path,
        state_folder: Path | None = None,
        card: Card | None = None,
    ) -> None:
        self._progress, self._first = progress, first
        self._num_steps, self._batch_tokens = num_steps, batch_tokens
        self._peak = peak_tokens_per_second
        self._logs, self._live = out / LOGS, (state_folder or out) / LOGS
        self._every = -(-num_steps // _RECORDED)
        self._num_before = len(lines)
        self._times: list[StepTime] = []
        self._num_written = 0
        self._window: deque[StepTime] = deque()
        self._window_seconds = 0.0
        self._unrecorded_seconds, self._num_unrecorded = 0.0, 0
        self._told = time.monotonic()
        self._hinted = False
        self._held_out_loss = next((line.held_out_loss for line in reversed(lines) if line.held_out_loss is not None), None)
        self._event_files: EventFiles | None = None
        self._weights_and_biases: WeightsAndBiases | None = None
        if first:
            self._live.mkdir(parents=True, exist_ok=True)
            cut_times(self._live, len(lines))
            self._open_event_files(lines)
            self._open_weights_and_biases(card)

    def _open_event_files(self, lines: Sequence[LogLine]) -> None:
        try:
            self._event_files = EventFiles(self._live / FOLDER, lines)
        except Exception as error:  # the package is missing or does not fit its own; the training needs neither
            self.say(f"no TensorBoard event files: {_first_line(error)}")

    def _open_weights_and_biases(self, card: Card | None) -> None:
        if card is None or not is_set_up():
            return
        config = {"asset": card.asset, "partition": card.partition, "recipe": card.recipe}
        try:
            self._weights_and_biases = WeightsAndBiases(name=card.name, run_id=card.identity, config=config, resumed=self._num_before > 0)
        except Exception as error:  # likewise
            self.say(f"not in Weights & Biases: {_first_line(error)}")
        else:
            self.say(f"in Weights & Biases: {self._weights_and_biases.place}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        """Write what is left and close what is open."""
        if not self._first:
            return
        self._write_times()
        if self._event_files is not None:
            self._event_files.close()
        if self._weights_and_biases is not None:
            self._to_weights_and_biases(lambda run: run.close(failed=kind is not None))

    def record(self, line: LogLine, *, seconds: float, waited: float = 0.0) -> None:
        """Take a step that is done.

        Args:
            line: its line of the log.
            seconds: what the step took, from asking for its batch to the updated weights; without saving and held-out loss.
            waited: what of it was spent waiting for the batch.
        """
        if not self._first:
            return
        taken = StepTime(line.step, seconds, waited)
        self._times.append(taken)
        if len(self._times) == _STARTUP_STEPS + 1:
            self._window.clear()
            self._window_seconds = 0.0
        self._window.append(taken)
        self._window_seconds += seconds
        while self._window_seconds - self._window[0].seconds > WINDOW_SECONDS:
            self._window_seconds -= self._window.popleft().seconds
        if line.held_out_loss is not None:
            self._held_out_loss = line.held_out_loss
        last = line.step == self._num_steps

        self._unrecorded_seconds += seconds
        self._num_unrecorded += 1
        if line.step % self._every == 0 or line.held_out_loss is not None or last:
            self._record_figures(line)
        if last or time.monotonic() - self._told >= PROGRESS_SECONDS:
            self._told = time.monotonic()
            self._write_times()
            message = self._message(line)
            self._progress(message)
            self._hint(message["seconds_left"])

    def finish(self) -> dict[str, Any]:
        """Put event files and times where they belong.

        Returns:
            Statistics: tokens_per_second (of this process's steps without its first ones), training_seconds (of all steps, those before a
            kill included), data_wait_share; mfu where the peak is known, peak_gpu_gib on a GPU, and final_held_out_loss where documents
            are held out. Nothing but on the first process.
        """
        if not self._first:
            return {}
        if self._live != self._logs:
            shutil.copytree(self._live, self._logs, dirs_exist_ok=True)
        own = self._times[_STARTUP_STEPS:] or self._times
        times = read_times(self._logs)
        held_out = {} if self._held_out_loss is None else {"final_held_out_loss": self._held_out_loss}
        return {**held_out, **self._speed(own or times), "training_seconds": round(sum(time.seconds for time in times), 2), **_memory()}

    def _record_figures(self, line: LogLine) -> None:
        rate = self._num_unrecorded * self._batch_tokens / max(self._unrecorded_seconds, 1e-9)
        self._unrecorded_seconds, self._num_unrecorded = 0.0, 0
        values = {**figures(line), "speed/tokens_per_second": rate, **{f"memory/{name}": value for name, value in _memory().items()}}
        if self._peak is not None:
            values["speed/mfu"] = rate / self._peak
        if self._event_files is not None:
            self._event_files.record(line.step, values)
        if self._weights_and_biases is not None:
            self._to_weights_and_biases(lambda run: run.record(line.step, values))

    def _to_weights_and_biases(self, act: Callable[[WeightsAndBiases], None]) -> None:
        assert self._weights_and_biases is not None
        try:
            act(self._weights_and_biases)
        except Exception as error:  # likewise
            self._weights_and_biases = None
            self.say(f"no longer in Weights & Biases: {_first_line(error)}")

    def _hint(self, seconds_left: float) -> None:
        """Tell once how to watch a training that takes long enough for it."""
        if self._hinted or self._event_files is None or seconds_left < WORTH_WATCHING_SECONDS:
            return
        self._hinted = True
        folder = (self._live / FOLDER).absolute()
        self.say(f"to watch it: tensorboard --logdir {folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder}")

    def _write_times(self) -> None:
        append_times(self._times[self._num_written :], self._live)
        self._num_written = len(self._times)

    def say(self, text: str) -> None:
        """Tell the run something in words; nothing but on the first process."""
        if self._first:
            self._progress({"kind": "progress", "note": text})

    def _speed(self, times: Sequence[StepTime]) -> dict[str, float]:
        seconds = max(sum(time.seconds for time in times), 1e-9)
        rate = len(times) * self._batch_tokens / seconds
        return {
            "tokens_per_second": round(rate, 1),
            **({} if self._peak is None else {"mfu": round(rate / self._peak, 4)}),
            "data_wait_share": round(sum(time.waited for time in times) / seconds, 4),
        }

    def _message(self, line: LogLine) -> dict[str, Any]:
        speed = self._speed(self._window)
        return {
            "kind": "progress",
            "step": line.step,
            "num_steps": self._num_steps,
            "loss": round(line.loss, 4),
            **({} if self._held_out_loss is None else {"held_out_loss": round(self._held_out_loss, 4)}),
            "learning_rate": line.learning_rate,
            "gradient_norm": round(line.gradient_norm, 4),
            **speed,
            **_memory(),
            "seconds_left": round((self._num_steps - line.step) * self._batch_tokens / max(speed["tokens_per_second"], 1e-9), 1),
        }


def _first_line(error: Exception) -> str:
    first = str(error).partition("\n")[0]
    return f"{type(error).__name__}: {first}"


def _memory() -> dict[str, float]:
    """Most memory that tensors took on this process's GPU, in GiB."""
    return {"peak_gpu_gib": round(torch.cuda.max_memory_allocated() / 2**30, 2)} if torch.cuda.is_initialized() else {}
