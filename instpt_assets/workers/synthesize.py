"""Worker: instruction-response pairs for the passages of one or more shards, with one engine start."""

import signal
import sys

from instpt_assets.store.store import Store
from instpt_assets.synthesis.write_pairs import write_pairs
from instpt_assets.workers.runtime import Report, Task, report_committed, run_task


def synthesize(task: Task, store: Store, report: Report) -> None:
    """Write the pairs of each of the task's shards; see `write_pairs`."""
    asset = task.jobs[0].asset
    write_pairs(
        store,
        task.jobs,
        task.execution,
        progress=lambda message: report({"kind": "progress", "asset": asset, **message}),
        committed=lambda spec, reused: report_committed(report, spec, reused=reused),
    )


if __name__ == "__main__":
    # A cancelled run unwinds, so that the chains finished since the last segment are kept too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    run_task(synthesize)
