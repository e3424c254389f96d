import shutil
import subprocess
from pathlib import Path

import dagster as dg
import pytest
import yaml

ROOT = Path(__file__).parents[2]


@pytest.fixture
def instance(tmp_path):
    shutil.copy(ROOT / "deploy" / "dagster.yaml", tmp_path)
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        yield instance


def test_the_instance_is_persistent_quiet_and_monitors_runs(instance):
    assert instance.is_persistent
    assert not instance.telemetry_enabled
    assert not instance.nux_enabled
    assert instance.run_monitoring_enabled
    assert instance.run_coordinator.dequeue_interval_seconds == 1


def test_a_pool_admits_one_step_at_a_time(instance):
    instance.event_log_storage.initialize_concurrency_limit_to_default("gpu")

    assert instance.event_log_storage.get_concurrency_info("gpu").slot_count == 1


def test_the_workspace_names_the_definitions():
    workspace = yaml.safe_load((ROOT / "workspace.yaml").read_text(encoding="utf-8"))

    assert workspace["load_from"][0]["python_module"]["module_name"] == "instpt_assets.definitions"


@pytest.mark.parametrize(
    ("variables", "arguments"),
    [
        ({}, ""),
        ({"SELECT": 'key:"a b" or tag:"x"', "SHARDS": "one two"}, '--select key:"a b" or tag:"x" --shards one two'),
    ],
)
def test_make_materialize_hands_on_select_and_shards_as_they_are(tmp_path, variables, arguments):
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name, text in {"deploy/setup.sh": "", ".venv/bin/python": 'for word; do printf "%s " "$word"; done; echo'}.items():
        script = tmp_path / name
        script.parent.mkdir(parents=True, exist_ok=True)
        script.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
        script.chmod(0o755)

    done = subprocess.run(
        ["make", "--silent", "materialize", *(f"{name}={value}" for name, value in variables.items())],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout.split() == ["-m", "instpt_assets.defs.materialize", *arguments.split()]
