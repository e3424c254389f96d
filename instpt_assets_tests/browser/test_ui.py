"""What a person does in the real UI, in a real browser: look at the graph, materialize, read a preview, cancel a run."""

import re
import time
from collections.abc import Iterator

import psutil
import pytest
from dagster_ui import CHROMIUM, browsing, serving, show_metadata
from playwright.sync_api import Page, expect
from project_folder import RECIPE, ProjectFolder

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH (Debian: apt-get install chromium)"),
]

GROUPS = ["corpus", "synthesizer", "synthesized", "tokens", "vanilla", "mix", "instruct", "comparison"]
LONG_TRAINING = {**RECIPE["synthesizer"], "optimization": {**RECIPE["synthesizer"]["optimization"], "token_budget": 2**30}}
RUN_MILLISECONDS = 120_000
"""A backfill waits up to half a minute for its daemon."""
CANCEL_SECONDS = 30


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> ProjectFolder:
    return ProjectFolder(tmp_path_factory.mktemp("browser") / "project", synthesizer=LONG_TRAINING)


@pytest.fixture(scope="module")
def url(folder: ProjectFolder) -> Iterator[str]:
    with serving(folder.root, folder.environment, folder.root / "dagster-dev.log") as address:
        yield address


@pytest.fixture
def page(url: str) -> Iterator[Page]:
    with browsing() as page:
        page.set_default_timeout(30_000)
        yield page


def workers(folder: ProjectFolder) -> list[psutil.Process]:
    """Living workers, their supervisors and whatever else they started for this project."""
    found = []
    for process in psutil.process_iter():
        try:
            ours = process.environ().get("INSTPT_STORE") == folder.environment["INSTPT_STORE"]
            if ours and "DAGSTER_PIPES_CONTEXT" in process.environ() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def test_the_graph_shows_every_group(page: Page, url: str) -> None:
    page.goto(f"{url}/asset-groups")
    for group in GROUPS:
        expect(page.get_by_text(group, exact=True).first).to_be_visible()
    page.keyboard.press("Alt+KeyE")  # expand all groups
    for asset in ("raw_corpus", "tokenizer", "comparison_report"):
        expect(page.get_by_text(asset, exact=True).first).to_be_visible()


def test_the_first_click_on_materialize_makes_all_shards(page: Page, url: str, folder: ProjectFolder) -> None:
    page.goto(f"{url}/assets/raw_corpus")
    page.get_by_role("button", name="Materialize…").click()
    page.get_by_role("button", name="All", exact=True).click()
    page.get_by_role("button", name="Launch backfill").click()
    page.get_by_text("View", exact=True).click()
    expect(page.get_by_text("100% completed")).to_be_visible(timeout=RUN_MILLISECONDS)
    assert {key for key in folder.artifacts() if key[0] == "raw_corpus"} == {("raw_corpus", "notes--a"), ("raw_corpus", "notes--b")}

    page.goto(f"{url}/assets/raw_corpus")
    show_metadata(page, "preview")
    for text in ("document_id", "notes/", "PSF-2.0"):
        expect(page.get_by_text(text).first).to_be_visible()


@pytest.mark.slow
def test_a_cancelled_training_leaves_no_process_behind(page: Page, url: str, folder: ProjectFolder) -> None:
    inputs = " or ".join(
        f'key:"{asset}"' for asset in ("raw_corpus", "document_signatures", "duplicate_documents", "clean_corpus", "tuning_collection")
    )
    prepared = folder.materialize("--select", inputs)
    assert prepared.returncode == 0, prepared.stderr

    page.goto(f"{url}/assets/instruction_synthesizer")
    page.get_by_role("button", name="Materialize").first.click()
    page.get_by_text("View", exact=True).click()
    expect(page.get_by_text(re.compile(r"step [\d,]+ of [\d,]+, loss")).first).to_be_visible(timeout=RUN_MILLISECONDS)
    assert {process.cmdline()[2] for process in workers(folder)} >= {"instpt_assets.workers.supervisor", "instpt_assets.workers.tune"}

    page.get_by_role("button", name="Terminate").click()
    page.get_by_role("dialog").get_by_role("button", name="Terminate").click()
    deadline = time.monotonic() + CANCEL_SECONDS
    while workers(folder):
        assert time.monotonic() < deadline, f"still running {CANCEL_SECONDS} s later: {workers(folder)}"
        time.sleep(0.2)
    page.keyboard.press("Escape")
    expect(page.get_by_text("Canceled", exact=True).first).to_be_visible(timeout=60_000)
