"""Tells, before anything is trained, whether lm-eval has the tasks: `python -m instpt_assets.workers.check_tasks <task> …`."""

import os
import sys


def main() -> None:
    """End with status 1 and one line on stderr if a task is unknown."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # names are known without their data sets
    from lm_eval.tasks import TaskManager

    from instpt_assets.evaluation.harness import check_task_names

    try:
        check_task_names(sys.argv[1:], TaskManager().all_tasks)
    except ValueError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
