"""Whatever ends the run, nothing of its worker stays behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

# A worker whose children leave its process group and session, ignore SIGTERM, and one of which loses its parent.
STUBBORN = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(300)"
child = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
orphan = subprocess.run([sys.executable, "-c", f"import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', {code!r}], start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).pid)"], capture_output=True, text=True)
open(sys.argv[1], "w").write(f"{os.getpid()} {child.pid} {orphan.stdout.strip()}")
time.sleep(300)
"""


def start(command: list[str]) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "instpt_assets.workers.supervisor", "5", *command], stdin=subprocess.PIPE, start_new_session=True
    )


def wait_for(path: Path) -> list[int]:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if path.exists() and len(path.read_text().split()) == 3:
            return [int(pid) for pid in path.read_text().split()]
        time.sleep(0.05)
    raise AssertionError("the worker did not start")


def alive(pids: list[int]) -> list[int]:
    return [pid for pid in pids if psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE]


@pytest.mark.parametrize("ending", ["pipe closed", "terminated", "interrupted"])
def test_every_descendant_is_ended_when_the_run_goes(tmp_path: Path, ending: str) -> None:
    supervisor = start([sys.executable, "-c", STUBBORN, str(tmp_path / "pids")])
    pids = wait_for(tmp_path / "pids")
    assert alive(pids) == pids
    if ending == "pipe closed":
        supervisor.stdin.close()
    else:
        supervisor.send_signal(signal.SIGTERM if ending == "terminated" else signal.SIGINT)
    supervisor.wait(timeout=20)
    assert alive(pids) == []


def test_a_killed_run_leaves_nothing(tmp_path: Path) -> None:
    """The process that holds the pipe is killed, as a run is by SIGKILL."""
    run = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import subprocess, sys, time\n"
            "subprocess.Popen([sys.executable, '-m', 'instpt_assets.workers.supervisor', '5', *sys.argv[1:]], stdin=subprocess.PIPE, start_new_session=True)\n"
            "time.sleep(300)",
            sys.executable,
            "-c",
            STUBBORN,
            str(tmp_path / "pids"),
        ]
    )
    pids = wait_for(tmp_path / "pids")
    supervisors = psutil.Process(run.pid).children()
    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    _, left = psutil.wait_procs(supervisors, timeout=20)
    assert left == [] and alive(pids) == []


def test_the_workers_exit_status_is_passed_on() -> None:
    assert start([sys.executable, "-c", "raise SystemExit(7)"]).wait(timeout=20) == 7
    assert start([sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"]).wait(timeout=20) == 128 + 9


def test_children_that_a_worker_leaves_behind_are_ended(tmp_path: Path) -> None:
    code = "import subprocess, sys; open(sys.argv[1], 'w').write(str(subprocess.Popen(['sleep', '300'], start_new_session=True).pid))"
    assert start([sys.executable, "-c", code, str(tmp_path / "pid")]).wait(timeout=20) == 0
    assert alive([int((tmp_path / "pid").read_text())]) == []
