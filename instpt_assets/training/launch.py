"""Start a training: in this process, or in several through torchrun, on one node or more.

torchrun's processes run `python -m instpt_assets.training.launch <job file>`. They speak to the process that started torchrun in marked lines
on standard output (progress and statistics: rank 0 alone). Each asks the kernel to be ended with its parent, so none outlives the run.
"""

import ctypes
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from instpt_assets.errors import UserError
from instpt_assets.training.distributed import set_threads
from instpt_assets.training.job import TrainingJob, run_job
from instpt_assets.training.monitor import Progress
from instpt_assets.training.nodes import RunsNode

_MARK = "instpt-training "
_END_SECONDS = 30.0
_LOOK_SECONDS = 1.0
_PR_SET_PDEATHSIG = 1


class TrainingFailed(UserError):
    """A process of a training ended with an error."""


def run(job: TrainingJob, progress: Progress) -> dict[str, Any]:
    """Do a training with as many processes as its execution says; its statistics.

    Raises:
        ValueError: data, budget and model do not fit together (with one process; with several the message comes in `TrainingFailed`).
        Diverged: loss or gradients are not finite (likewise).
        NodesFailed: the nodes did not come together.
        TrainingFailed: one of several processes, or another node, failed.
    """
    execution = job.execution.training
    if execution.num_nodes == execution.num_processes == 1:
        set_threads(job.execution.num_threads, 1)
        return run_job(job, progress)
    if execution.num_nodes == 1:
        statistics = run_processes(job, ["--standalone"], progress)
    else:
        with RunsNode(job, progress) as node:
            try:
                statistics = run_processes(job, node.torchrun, progress, node.look)
            except TrainingFailed as error:
                raise TrainingFailed("; ".join(dict.fromkeys([*node.reports(), str(error)]))) from error
    if statistics is None:
        raise TrainingFailed("the process of rank 0 ended without a word; its output is above")
    return statistics


def run_processes(
    job: TrainingJob, place: Sequence[str], progress: Progress, look: Callable[[], str | None] = lambda: None
) -> dict[str, Any] | None:
    """Do this node's share of a training in processes of torchrun; the statistics, if rank 0 is among them.

    Args:
        place: what torchrun must know of this node and the others.
        progress: told what rank 0 tells.
        look: asked every second, in a thread; a reason why the processes must end, or None.

    Raises:
        TrainingFailed: a process failed, or there was a reason.
    """
    with tempfile.TemporaryDirectory(prefix="instpt-training-") as folder:
        file = Path(folder, "job.json")
        file.write_text(job.model_dump_json(), encoding="utf-8")
        processes = ["--nproc-per-node", str(job.execution.training.num_processes), "--module", "instpt_assets.training.launch", str(file)]
        command = [sys.executable, "-m", "torch.distributed.run", *place, *processes]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, preexec_fn=lambda: _end_with_parent(signal.SIGTERM))
        try:
            with _watched(process, look) as reasons:
                return _listen(process, progress, reasons)
        finally:
            process.terminate()
            try:
                process.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextmanager
def _watched(process: subprocess.Popen[str], look: Callable[[], str | None]) -> Iterator[list[str]]:
    """Ends the process as soon as there is a reason to; the list then holds it."""
    reasons: list[str] = []
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(_LOOK_SECONDS):
            if reason := look():
                reasons.append(reason)
                process.terminate()
                ended.wait(_END_SECONDS)
                process.kill()
                return

    thread = threading.Thread(target=watch, name="look", daemon=True)
    thread.start()
    try:
        yield reasons
    finally:
        ended.set()
        thread.join()


def _listen(process: subprocess.Popen[str], progress: Progress, reasons: Sequence[str]) -> dict[str, Any] | None:
    statistics: dict[str, Any] | None = None
    errors = []
    assert process.stdout is not None
    for line in process.stdout:
        if not line.startswith(_MARK):
            sys.stdout.write(line)
            continue
        message = json.loads(line.removeprefix(_MARK))
        match message["kind"]:
            case "done":
                statistics = message["statistics"]
            case "failed":
                errors.append(message["error"])
            case _:
                progress(message)
    status = process.wait()
    if status != 0 or reasons:
        # The others fail, or are ended, because the first one did.
        raise TrainingFailed("; ".join([*reasons, *errors[:1]]) or f"torchrun ended with status {status}; its output is above")
    return statistics


def _end_with_parent(number: signal.Signals) -> None:
    """Ask the kernel for a signal when the thread that started this process ends."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)


def _say(message: Mapping[str, Any]) -> None:
    sys.stdout.write(_MARK + json.dumps(message) + "\n")
    sys.stdout.flush()


def main() -> None:
    """One process of a training under torchrun."""
    _end_with_parent(signal.SIGKILL)
    first = os.environ["RANK"] == "0"
    try:
        job = TrainingJob.model_validate_json(Path(sys.argv[1]).read_text(encoding="utf-8"))
        set_threads(job.execution.num_threads, job.execution.training.num_processes)
        statistics = run_job(job, _say if first else lambda _: None)
    except Exception as error:
        _say({"kind": "failed", "error": f"{type(error).__name__}: {error}"})
        raise
    if first:
        _say({"kind": "done", "statistics": statistics})


if __name__ == "__main__":
    main()
