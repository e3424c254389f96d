"""A recorded output changes only together with the code versions of its stages, so that no store keeps what older code made."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

RECORDED = Path(__file__).with_name("goldens.json")


def unraised(then: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """`golden: stage` for each whose output changed but whose code version was not raised."""
    return [
        f"{name}: {stage}"
        for name, record in now.items()
        if name in then and record["output"] != then[name]["output"]
        for stage, version in record["code_versions"].items()
        if version <= then[name]["code_versions"].get(stage, 0)
    ]


def test_an_output_recorded_anew_without_a_raised_version_is_found() -> None:
    then = {"tokens": {"output": "a", "code_versions": {"raw": 1, "augmented": 1}}}
    now = {"tokens": {"output": "b", "code_versions": {"raw": 2, "augmented": 1}}, "new": {"output": "c", "code_versions": {"raw": 1}}}
    assert unraised(then, now) == ["tokens: augmented"]
    assert unraised(then, then) == []


@pytest.mark.parametrize("revision", ["HEAD", "HEAD^"])
def test_no_output_changed_without_its_code_versions(revision: str) -> None:
    shown = subprocess.run(
        ["git", "show", f"{revision}:./{RECORDED.name}"], cwd=RECORDED.parent, capture_output=True, text=True, check=False
    )
    if shown.returncode != 0:
        pytest.skip("no commit to compare with")
    assert unraised(json.loads(shown.stdout), json.loads(RECORDED.read_text())) == []
