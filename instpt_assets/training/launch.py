"""Start a training: in this process, or in several through torchrun.

torchrun's processes run `python -m instpt_assets.training.launch <job file>`. They speak to the parent in marked lines on standard
output (progress: rank 0 alone); when the parent is gone the next of them fails, and torchrun ends all processes.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from instpt_assets.errors import UserError
from instpt_assets.training.distributed import set_threads
from instpt_assets.training.job import Progress, TrainingJob, run_job

_MARK = "instpt-training "
_END_SECONDS = 30.0


class TrainingFailed(UserError):
    """A process of a training ended with an error."""


def run(job: TrainingJob, progress: Progress) -> dict[str, Any]:
    """Do a training with as many processes as its execution says; its statistics.

    Raises:
        ValueError: data, budget and model do not fit together (with one process; with several the message comes in `TrainingFailed`).
        Diverged: loss or gradients are not finite (likewise).
        TrainingFailed: one of several processes failed.
    """
    num_processes = job.execution.training.num_processes
    if num_processes == 1:
        set_threads(job.execution.num_threads, 1)
        return run_job(job, progress)
    with tempfile.TemporaryDirectory(prefix="instpt-training-") as folder:
        file = Path(folder, "job.json")
        file.write_text(job.model_dump_json(), encoding="utf-8")
        torchrun = [
            "torch.distributed.run",
            "--standalone",
            "--nproc-per-node",
            str(num_processes),
            "--module",
            "instpt_assets.training.launch",
        ]
        process = subprocess.Popen([sys.executable, "-m", *torchrun, str(file)], stdout=subprocess.PIPE, text=True)
        try:
            return _listen(process, progress)
        finally:
            process.terminate()
            try:
                process.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _listen(process: subprocess.Popen[str], progress: Progress) -> dict[str, Any]:
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
    if status != 0 or statistics is None:
        # The others fail, or are ended, because the first one did.
        raise TrainingFailed(errors[0] if errors else f"torchrun ended with status {status}; its output is above")
    return statistics


def _say(message: Mapping[str, Any]) -> None:
    sys.stdout.write(_MARK + json.dumps(message) + "\n")
    sys.stdout.flush()


def main() -> None:
    """One process of a training under torchrun."""
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
