"""Dagster's UI as `make ui` serves it, and Debian's Chromium to look at it."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
from playwright.sync_api import Page, sync_playwright

REPOSITORY = Path(__file__).parents[2]
CHROMIUM = shutil.which("chromium")
FLAGS = "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync"
START_SECONDS, STOP_SECONDS = 90.0, 20.0


@contextmanager
def serving(folder: Path, environment: Mapping[str, str], log: Path) -> Iterator[str]:
    """The UI's address while server and daemon run for the project in that folder, started as `make ui` does; all processes end with it."""
    environment = {**environment, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    prepared = subprocess.run(
        [sys.executable, "-m", "instpt_assets.defs.home"], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert prepared.returncode == 0, prepared.stderr
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    with log.open("wb") as output:
        # A background process may have been started with SIGINT ignored; then the server would survive the others.
        process = subprocess.Popen(
            ["env", "--default-signal=INT", "dagster", "dev", "-w", str(REPOSITORY / "workspace.yaml"), "-h", "127.0.0.1", "-p", str(port)],
            cwd=folder, env={**environment, "DAGSTER_HOME": prepared.stdout.strip()}, stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
    try:
        _wait_until_up(url, process, log)
        yield url
    finally:
        _end(process)


def _wait_until_up(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            with urllib.request.urlopen(f"{url}/server_info", timeout=5):
                return
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"the UI did not start: {log.read_text()[-3000:]}") from None
            time.sleep(0.2)


def _end(process: subprocess.Popen[bytes]) -> None:
    family = [psutil.Process(process.pid)]
    with suppress(psutil.NoSuchProcess):
        family += family[0].children(recursive=True)
    process.terminate()
    for survivor in psutil.wait_procs(family, timeout=STOP_SECONDS)[1]:
        survivor.kill()
    process.wait()


@contextmanager
def browsing(width: int = 1600, height: int = 1000) -> Iterator[Page]:
    """A fresh Chromium's page."""
    assert CHROMIUM is not None, "no chromium on the PATH"
    with tempfile.TemporaryDirectory() as profile, sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            profile, executable_path=CHROMIUM, headless=True, args=FLAGS.split(), viewport={"width": width, "height": height}
        )
        try:
            yield context.pages[0]
        finally:
            context.close()


def show_metadata(page: Page, name: str) -> None:
    """On an asset's page: open that Markdown of its latest materialization; the UI shows a short one in place, a long one in a dialog."""
    row = page.get_by_role("row").filter(has=page.get_by_text(name, exact=True))
    row.wait_for()
    row.scroll_into_view_if_needed()
    button = row.get_by_text("[Show Markdown]")
    if button.count():
        button.click()
        page.get_by_role("dialog").wait_for()
