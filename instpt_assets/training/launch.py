"""Start a training: in this process, or in several through torchrun, on one node or more.

torchrun's processes run `python -m instpt_assets.training.launch <job file>`. They speak to the process that started torchrun in marked lines
on standard output (progress and statistics: rank 0 alone). Each asks the kernel to be ended with its parent, so none outlives the run.
"""

import ctypes
import json
import math
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch.distributed.run import get_args_parser

from instpt_assets.errors import UserError, told
from instpt_assets.training.distributed import num_local_processes, set_threads
from instpt_assets.training.job import TrainingJob, run_job
from instpt_assets.training.monitor import Progress
from instpt_assets.training.nodes import RunsNode

_MARK = "instpt-training "
_END_SECONDS = 30.0
_KILL_SECONDS = 5.0
_LOOK_SECONDS = 1.0
_PR_SET_PDEATHSIG = 1
_LOST = (
    "a process of the training ended without a word, and the others lost it: was it killed, or did the machine run out of memory "
    "(`dmesg` says so)? The last state is kept: materialize again to go on from it"
)


class TrainingFailed(UserError):
    """A process of a training ended with an error."""


def run(job: TrainingJob, progress: Progress) -> dict[str, Any]:
    """Do a training with as many processes as its execution says; its statistics.

    Raises:
        ValueError: data, budget and model do not fit together (with one process; with several the message comes in `TrainingFailed`).
        Diverged: loss or gradients are not finite (likewise).
        ExecutionError: the execution is not for this machine (likewise, but for the number of its GPUs).
        NodesFailed: the nodes did not come together.
        TrainingFailed: one of several processes, or another node, failed.
    """
    num_nodes = job.execution.training.num_nodes
    if num_nodes == num_local_processes(job.execution) == 1:
        set_threads(job.execution.num_threads, 1)
        return run_job(job, progress)
    if num_nodes == 1:
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
        processes = ["--nproc-per-node", str(num_local_processes(job.execution))]
        module = ["--module", "instpt_assets.training.launch", str(file)]
        command = [sys.executable, "-m", "torch.distributed.run", *_shutdown_timeout(job), *place, *processes, *module]
        # torchrun's own default, named so that it prints no banner about it; the processes set their threads themselves.
        environment = {"OMP_NUM_THREADS": "1", **os.environ}
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env=environment, preexec_fn=lambda: _end_with_parent(signal.SIGTERM)
        )
        try:
            with _handing_on_termination(process) as terminated, _watched(process, look) as reasons:
                try:
                    return _listen(process, progress, reasons)
                except TrainingFailed:
                    if terminated.is_set():
                        raise SystemExit(128 + signal.SIGTERM) from None
                    raise
        finally:
            process.terminate()
            try:
                process.wait(job.execution.training.end_seconds + _KILL_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextmanager
def _handing_on_termination(torchrun: subprocess.Popen[str]) -> Iterator[threading.Event]:
    """SIGTERM is for the training's processes, which save their state and end; this one ends behind them.

    It does not go to torchrun: a second one, beside that of whoever ends all processes of this run, would have it kill them at once.
    """
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return

    def hand_on(*_: object) -> None:
        event.set()
        with suppress(OSError):  # torchrun has ended
            for pid in Path(f"/proc/{torchrun.pid}/task/{torchrun.pid}/children").read_text(encoding="ascii").split():
                with suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, hand_on)
    try:
        yield event
    finally:
        signal.signal(signal.SIGTERM, before)


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


def _shutdown_timeout(job: TrainingJob) -> list[str]:
    """How long torchrun waits for processes that it ends, where its release can be told; else 30 s."""
    known = any("--shutdown-timeout" in action.option_strings for action in get_args_parser()._actions)
    return ["--shutdown-timeout", str(math.ceil(job.execution.training.end_seconds))] if known else []


def _listen(process: subprocess.Popen[str], progress: Progress, reasons: Sequence[str]) -> dict[str, Any] | None:
    statistics: dict[str, Any] | None = None
    errors: list[str] = []
    losses: list[str] = []
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
                (losses if message["is_loss"] else errors).append(message["error"])
            case _:
                progress(message)
    status = process.wait()
    if status != 0 or reasons:
        # The others fail, or are ended, because the first one did.
        if losses and not errors:
            errors = [f"{_LOST} (the others say: {losses[0]})"]
        raise TrainingFailed("; ".join([*reasons, *errors[:1]]) or f"torchrun ended with status {status}; its output is above")
    return statistics


def _end_with_parent(number: signal.Signals) -> None:
    """Ask the kernel for a signal when the thread that started this process ends."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)


def _say(message: Mapping[str, Any]) -> None:
    sys.stdout.write(_MARK + json.dumps(message) + "\n")
    sys.stdout.flush()


def _is_loss(error: Exception) -> bool:
    """Whether a process failed because another one is gone."""
    return isinstance(error, RuntimeError) and re.search(r"gloo|NCCL|[Cc]onnection", str(error)) is not None


def main() -> None:
    """One process of a training under torchrun."""
    _end_with_parent(signal.SIGKILL)
    first = os.environ["RANK"] == "0"
    try:
        job = TrainingJob.model_validate_json(Path(sys.argv[1]).read_text(encoding="utf-8"))
        set_threads(job.execution.num_threads, int(os.environ["LOCAL_WORLD_SIZE"]))
        statistics = run_job(job, _say if first else lambda _: None)
    except Exception as error:
        _say({"kind": "failed", "error": told(error), "is_loss": _is_loss(error)})
        raise
    if first:
        _say({"kind": "done", "statistics": statistics})
    dist.destroy_process_group()  # NCCL would complain, and might wait, at the end of the process


if __name__ == "__main__":
    main()
