"""A misspelt task of lm-eval is told before the training that it would score, not after."""

import os
import subprocess
import sys

import dagster as dg

from instpt_assets.recipe.evaluation import Evaluation


def check_task_names(evaluation: Evaluation) -> None:
    """Ask lm-eval, in a process of its own (some seconds), whether it has the tasks that the recipe names.

    Raises:
        dg.Failure: it lacks one; the description says which, and what it has.
    """
    if not evaluation.harness_tasks:
        return
    names = [task.task for task in evaluation.harness_tasks]
    command = [sys.executable, "-m", "instpt_assets.workers.check_tasks", *names]
    found = subprocess.run(command, stderr=subprocess.PIPE, text=True, env=os.environ, check=False)
    if found.returncode != 0:
        reason = found.stderr.strip().splitlines()
        raise dg.Failure(reason[-1] if reason else f"checking the tasks ended with status {found.returncode}", allow_retries=False)
