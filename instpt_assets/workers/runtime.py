"""What every worker shares: read the task, find or make its artifacts, report through Dagster Pipes.

`python -m instpt_assets.workers.<stage>` is started by an asset (the task comes as Pipes extras) or by hand with the task's file as its
only argument (messages are then printed). The store is the truth: messages carry progress only.
"""

import json
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from dagster_pipes import open_dagster_pipes
from pydantic import BaseModel, ConfigDict

from instpt_assets.errors import UserError, told
from instpt_assets.recipe.execution import Execution
from instpt_assets.store.lease import RUN_VARIABLE
from instpt_assets.store.making import Inputs, Made, find_or_make
from instpt_assets.store.manifest import Spec
from instpt_assets.store.store import CommitConflict, Store

Report = Callable[[Mapping[str, Any]], None]
Make = Callable[[Spec, Inputs, Execution, Path, Report], dict[str, Any]]


class ArtifactsFailed(UserError):
    """Some artifacts of a task could not be made; the message names them and says why."""


class Task(BaseModel):
    """What a worker is told: the artifacts to make, and how. The store's URL carries no secret; credentials come from the environment."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    store: str
    """URL of the store."""
    execution: Execution
    """The execution profile."""
    jobs: tuple[Spec, ...]
    """The artifacts to make, in order."""


AnyTask = TypeVar("AnyTask", bound=Task)


def run_task(body: Callable[[AnyTask, Store, Report], None], kind: type[AnyTask]) -> None:
    """Run a worker's body on its task; an exception is reported as a `failed` message before it ends the process with status 1."""
    if len(sys.argv) > 1:
        _run(body, kind, Path(sys.argv[1]).read_text(encoding="utf-8"), lambda message: print(json.dumps(dict(message)), flush=True))
        return
    with open_dagster_pipes() as pipes:
        os.environ[RUN_VARIABLE] = pipes.run_id
        _run(body, kind, json.dumps(dict(pipes.extras)), lambda message: pipes.report_custom_message(dict(message)))


def _run(body: Callable[[AnyTask, Store, Report], None], kind: type[AnyTask], text: str, report: Report) -> None:
    try:
        task = kind.model_validate_json(text)
        body(task, Store(task.store), report)
    except Exception as error:
        report({"kind": "failed", "error": told(error)})
        if _is_for_users(error):
            sys.exit(1)
        raise


def run_worker(make: Make, *, committed: Callable[[Store, Spec], None] = lambda store, spec: None, shared: bool = False) -> None:
    """Make each of the task's artifacts that the store lacks, one after another, and report each as it is committed.

    One that fails does not stop those behind it; the worker fails when all have had their turn.

    Args:
        make: makes one artifact.
        committed: called when an artifact is in the store, before it is reported.
        shared: runs over different partitions make these artifacts too; one that another run committed first is taken.
    """

    def body(task: Task, store: Store, report: Report) -> None:
        failures = []
        for job in task.jobs:
            label = {"kind": "progress", "asset": job.asset, "partition": job.partition}

            def build(spec: Spec, inputs: Inputs, out: Path, label: dict[str, str] = label) -> dict[str, Any]:
                return make(spec, inputs, task.execution, out, lambda message: report({**label, **message}))

            try:
                try:
                    made = find_or_make(store, job, build)
                except CommitConflict:
                    first = store.find(job) if shared else None
                    if first is None:
                        raise
                    made = Made(first, reused=True)
                committed(store, job)
            except Exception as error:  # only its text is kept: a traceback would hold on to model and optimizer
                if not _is_for_users(error):
                    traceback.print_exc()
                failures.append(f"{job.asset}/{job.partition}: {told(error)}")
                report({**label, "stage": "failed", "error": told(error)})
            else:
                report_committed(report, job, reused=made.reused)
        if failures:
            count = f"{len(failures)} of {len(task.jobs)} artifacts failed: " if len(task.jobs) > 1 else ""
            raise ArtifactsFailed(count + "; ".join(failures))

    run_task(body, Task)


def _is_for_users(error: Exception) -> bool:
    return isinstance(error, UserError | ValueError)


def report_committed(report: Report, spec: Spec, *, reused: bool) -> None:
    """Tell that an artifact is in the store (`reused`: that it was there before)."""
    report({"kind": "committed", "asset": spec.asset, "partition": spec.partition, "identity": spec.identity, "reused": reused})
