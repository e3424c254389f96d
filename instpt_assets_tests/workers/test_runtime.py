"""A worker's artifacts, one after another: what fails is told and stops none behind it."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from instpt_assets.recipe.execution import Execution
from instpt_assets.store.manifest import Spec
from instpt_assets.store.store import Store
from instpt_assets.training.loop import Diverged
from instpt_assets.workers.runtime import Task, run_worker

SPECS = tuple(Spec(asset="arm/checkpoint", partition=f"seed-{n}", code_version=1, recipe={"n": n}, inputs=()) for n in range(3))


def run(folder: Path, errors: dict[str, Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a worker that makes the three artifacts but those that have errors."""

    def make(spec: Spec, inputs: object, execution: Execution, out: Path, progress: object) -> dict[str, Any]:
        if spec.partition in errors:
            raise errors[spec.partition]
        (out / "weights.txt").write_text(spec.partition)
        return {}

    task = folder / "task.json"
    task.write_text(Task(store=str(folder / "store"), execution=Execution(), jobs=SPECS).model_dump_json())
    monkeypatch.setattr(sys, "argv", ["worker", str(task)])
    run_worker(make)


def test_one_that_fails_stops_none_behind_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run(tmp_path, {"seed-0": Diverged("step 2: loss nan"), "seed-1": ValueError("too few sequences")}, monkeypatch)
    assert ended.value.code == 1
    store = Store(str(tmp_path / "store"))
    assert [store.find(spec) is not None for spec in SPECS] == [False, False, True]
    output = capsys.readouterr()
    messages = [json.loads(line) for line in output.out.splitlines()]
    told = [(message["kind"], message.get("partition"), message.get("error")) for message in messages]
    assert told == [
        ("progress", "seed-0", "step 2: loss nan"),
        ("progress", "seed-1", "ValueError: too few sequences"),
        ("committed", "seed-2", None),
        (
            "failed",
            None,
            "2 of 3 artifacts failed: arm/checkpoint/seed-0: step 2: loss nan; arm/checkpoint/seed-1: ValueError: too few sequences",
        ),
    ]
    assert "Traceback" not in output.err


def test_an_error_that_nobody_expected_comes_with_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run(tmp_path, {"seed-1": RuntimeError("out of memory")}, monkeypatch)
    assert "Traceback" in capsys.readouterr().err
    run(tmp_path, {}, monkeypatch)


@pytest.mark.parametrize("shared", [True, False])
def test_what_another_run_committed_first_is_taken_where_runs_share_it(
    shared: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(str(tmp_path / "store"))

    def make(spec: Spec, inputs: object, execution: Execution, out: Path, progress: object) -> dict[str, Any]:
        with store.write(spec) as draft:  # the other run is a little faster
            (draft.folder / "weights.txt").write_text("theirs")
        (out / "weights.txt").write_text("ours")
        return {}

    task = tmp_path / "task.json"
    task.write_text(Task(store=store.url, execution=Execution(), jobs=SPECS[:1]).model_dump_json())
    monkeypatch.setattr(sys, "argv", ["worker", str(task)])
    if shared:
        run_worker(make, shared=True)
    else:
        with pytest.raises(SystemExit):
            run_worker(make)
    artifact = store.find(SPECS[0])
    assert artifact is not None and artifact.file("weights.txt").read_text() == "theirs"
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (last["kind"], last.get("reused")) == (("committed", True) if shared else ("failed", None))
