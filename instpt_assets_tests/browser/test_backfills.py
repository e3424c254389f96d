"""Backfills as a person starts them: of the whole graph with a click, and of chosen shards on the command line."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import dagster as dg
import pytest
from dagster._core.execution.backfill import BULK_ACTION_TERMINAL_STATUSES
from dagster_ui import CHROMIUM, REPOSITORY, browsing, serving
from project_folder import SHARDED, ProjectFolder, every_artifact

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(2400),
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH (Debian: apt-get install chromium)"),
]

GRAPH_SECONDS, JOB_SECONDS = 1500, 400
"""The daemon looks at a backfill twice a minute: each layer of the graph waits for it."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> ProjectFolder:
    return ProjectFolder(tmp_path_factory.mktemp("backfills") / "project")


@pytest.fixture(scope="module")
def url(folder: ProjectFolder) -> Iterator[str]:
    with serving(folder.root, folder.environment, folder.root / "dagster-dev.log") as address:
        yield address


@pytest.fixture(scope="module")
def instance(folder: ProjectFolder, url: str) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.from_config(str(folder.root / "dagster")) as instance:
        yield instance


def wait_for(condition: Callable[[], bool], seconds: float, what: Callable[[], object]) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what()
        time.sleep(1)


def failures(instance: dg.DagsterInstance) -> list[str]:
    """What runs that failed say."""
    failed = instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE]))
    return [entry.user_message for run in failed for entry in instance.all_logs(run.run_id) if "fail" in entry.user_message.lower()]


def test_materialize_all_on_the_graphs_page_makes_everything(url: str, folder: ProjectFolder, instance: dg.DagsterInstance) -> None:
    with browsing() as page:
        page.set_default_timeout(60_000)
        page.goto(f"{url}/asset-groups")
        page.get_by_role("button", name="Materialize all").click()
        page.get_by_role("button", name="All", exact=True).click()
        page.get_by_role("button", name="Launch backfill").click()
        page.get_by_text("View", exact=True).wait_for()
    (backfill,) = instance.get_backfills()

    def ended() -> bool:
        found = instance.get_backfill(backfill.backfill_id)
        return found is not None and found.status in BULK_ACTION_TERMINAL_STATUSES

    wait_for(ended, GRAPH_SECONDS, lambda: (sorted(every_artifact("notes--a", "notes--b") - folder.artifacts().keys()), failures(instance)))
    assert folder.artifacts().keys() == every_artifact("notes--a", "notes--b"), failures(instance)
    assert failures(instance) == []


def test_a_backfill_of_chosen_shards_from_the_command_line_makes_these(
    url: str, folder: ProjectFolder, instance: dg.DagsterInstance
) -> None:
    for name in "cd":
        text = f"A new note about generators in file {name}. A generator yields its values one after another, so memory does not grow."
        (folder.root / "notes" / f"{name}.jsonl").write_text(json.dumps({"id": f"{name}0", "text": text}) + "\n")
    before = folder.artifacts()
    runs = {run.run_id for run in instance.get_runs()}

    def command(*arguments: str) -> None:
        done = subprocess.run(
            [sys.executable, "-m", *arguments],
            cwd=folder.root, env=folder.environment, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr

    command("instpt_assets.defs.home")  # registers the new files
    workspace = ("-w", str(REPOSITORY / "workspace.yaml"))
    command("dagster", "job", "backfill", *workspace, "--job", "shards", "--partitions", "notes--c", "--noprompt")

    def ended() -> bool:
        new = [run for run in instance.get_runs() if run.run_id not in runs]
        return bool(new) and all(run.is_finished for run in new)

    wait_for(ended, JOB_SECONDS, lambda: failures(instance))
    assert failures(instance) == []
    after = folder.artifacts()
    assert after.keys() - before.keys() == {(asset, "notes--c") for asset in SHARDED}
    assert {key for key in before if before[key] != after[key]} == {("duplicate_documents", "all")}
