"""Runs whose process was killed: Dagster does not learn of it by itself, and such a run keeps its place in a pool."""

import os
import socket
from contextlib import suppress

import dagster as dg
import psutil
from dagster._core.storage.dagster_run import RunsFilter

PROCESS_TAG = "instpt/process"
"""Host, process id and start time of the process that executes a run outside of Dagster's launcher."""


def this_process() -> dict[str, str]:
    """The tag of a run that this process executes."""
    process = psutil.Process()
    return {PROCESS_TAG: f"{socket.gethostname()}:{os.getpid()}:{process.create_time():.0f}"}


def end_dead_runs(instance: dg.DagsterInstance) -> None:
    """Mark runs of killed processes of this machine as failed and free their pool slots, so that nothing waits for them."""
    unfinished = [dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.NOT_STARTED]
    for run in instance.get_runs(RunsFilter(statuses=unfinished)):
        host, _, process = run.tags.get(PROCESS_TAG, "").partition(":")
        if host == socket.gethostname() and not _lives(process):
            instance.report_run_failed(run, "The process that executed this run was killed.")
            instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)


def _lives(process: str) -> bool:
    pid, _, created = process.partition(":")
    with suppress(psutil.NoSuchProcess):
        return f"{psutil.Process(int(pid)).create_time():.0f}" == created
    return False
