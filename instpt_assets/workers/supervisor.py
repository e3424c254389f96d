"""Ends a worker and all its descendants when the run that started it is cancelled or killed.

`python -m instpt_assets.workers.supervisor SECONDS COMMAND…` with a pipe on standard input that only the run holds open. The supervisor is the
subreaper of everything below it, so a process that changes its group or session (torchrun's ranks, vLLM's engine) and loses its parent
still comes back to it. The pipe's end (the run is gone), SIGTERM and SIGINT all mean: terminate every descendant, and kill what is left when the seconds are over.
"""

import ctypes
import os
import select
import signal
import subprocess
import sys
import time

import psutil

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36


def supervise(command: list[str], end_seconds: float) -> int:
    """Run the command until it ends or the run does; returns its exit status (negative: the signal that ended it).

    Args:
        command: the worker's.
        end_seconds: from SIGTERM to SIGKILL.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER) failed")
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)

    # If the supervisor itself is killed, the kernel ends at least the worker.
    child = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=lambda: libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    )
    child_ended = os.pidfd_open(child.pid)
    ready, _, _ = select.select([sys.stdin.fileno(), wake_read, child_ended], [], [])
    if child_ended not in ready:
        _signal_all(signal.SIGTERM)
        deadline = time.monotonic() + end_seconds
        while _living() and time.monotonic() < deadline:
            time.sleep(0.05)
    while _living():
        _signal_all(signal.SIGKILL)
        time.sleep(0.05)
    return child.wait()


def _living() -> list[psutil.Process]:
    """Descendants that have not ended (zombies have; they go when this process does)."""
    living = []
    for process in psutil.Process().children(recursive=True):
        try:
            if process.status() != psutil.STATUS_ZOMBIE:
                living.append(process)
        except psutil.NoSuchProcess:
            continue
    return living


def _signal_all(number: signal.Signals) -> None:
    for process in _living():
        try:
            process.send_signal(number)
        except psutil.NoSuchProcess:
            continue


if __name__ == "__main__":
    status = supervise(sys.argv[2:], float(sys.argv[1]))
    # A death by signal is passed on as a shell would.
    sys.exit(status if status >= 0 else 128 - status)
