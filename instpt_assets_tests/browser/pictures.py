"""README's pictures, taken of the real UI: `python instpt_assets_tests/browser/pictures.py OUT_FOLDER`.

Shows the project that `INSTPT_RECIPE`, `INSTPT_STORE` and `DAGSTER_HOME` name (as `make ui` does), which must be materialized.
"""

import os
import sys
import tempfile
from pathlib import Path

from dagster_ui import browsing, serving, show_metadata
from playwright.sync_api import Page

from instpt_assets.recipe.loading import load_recipe

SETTLE_MILLISECONDS = 8_000
"""For layout, animations and the state of every asset, which the UI loads bit by bit."""


def main(out: Path) -> None:
    """Write graph.png, preview.png and report.png."""
    out.mkdir(parents=True, exist_ok=True)
    pair_set = next(iter(load_recipe().pair_sets))
    with tempfile.TemporaryDirectory() as logs, serving(Path.cwd(), os.environ, Path(logs) / "dagster-dev.log") as url:
        with browsing(2000, 1300) as page:
            page.goto(f"{url}/asset-groups")
            page.get_by_text("Hide navigation").click()
            page.get_by_text("comparison", exact=True).first.wait_for()
            page.keyboard.press("Alt+KeyE")  # expand all groups
            page.get_by_text("raw_corpus", exact=True).first.wait_for()
            _save(page, out / "graph.png")
        with browsing(1400, 900) as page:
            for asset, name in ((f"{pair_set}/instruction_pairs", "preview"), ("comparison_report", "report")):
                page.goto(f"{url}/assets/{asset}")
                show_metadata(page, "preview")
                _save(page, out / f"{name}.png")


def _save(page: Page, path: Path) -> None:
    page.wait_for_timeout(SETTLE_MILLISECONDS)
    page.screenshot(path=path)
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())
