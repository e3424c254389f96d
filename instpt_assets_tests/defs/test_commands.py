"""The commands on settings that are wrong: one line that says what to change, and nothing changed."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import dagster as dg
import pytest
import yaml
from light_project import LightProject

from instpt_assets.defs import home
from instpt_assets.defs.attributes import GPU_POOL
from instpt_assets.defs.automation import new_shards, nightly_synthesis
from instpt_assets.defs.materialize import materialize_recipe
from instpt_assets.defs.project import Project
from instpt_assets.defs.shards import register
from instpt_assets.errors import UserError
from instpt_assets.recipe.loading import load_recipe


@pytest.fixture
def light(tmp_path: Path) -> LightProject:
    return LightProject(tmp_path, shards="ab")


def command(light: LightProject, module: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "INSTPT_RECIPE": str(light.root / "light.yaml"),
        "INSTPT_STORE": str(light.root / "store"),
        "DAGSTER_HOME": str(light.root / "dagster"),
        **variables,
    }
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-m", f"instpt_assets.defs.{module}", *arguments],
        env=environment, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def test_first_commands_of_a_recipe_that_begin_at_once_share_the_new_instance(light: LightProject) -> None:
    with ThreadPoolExecutor() as pool:
        done = list(pool.map(lambda _: command(light, "home", DAGSTER_HOME=str(light.root / "new")), range(3)))
    assert [run.returncode for run in done] == [0, 0, 0], [run.stderr[-500:] for run in done]


def test_an_interrupted_run_ends_in_one_line(light: LightProject) -> None:
    light.instance.event_log_storage.set_concurrency_slots(GPU_POOL, 0)  # it waits until it is interrupted
    environment = {**os.environ, "INSTPT_RECIPE": str(light.root / "light.yaml"), "INSTPT_STORE": str(light.root / "store")}
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "instpt_assets.defs.materialize"],
        env={**environment, "DAGSTER_HOME": str(light.root / "dagster")}, cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None and process.stderr is not None
        for line in process.stdout:
            if line.startswith("waiting for a place in pool gpu, held by nobody: its limit is 0"):
                os.killpg(process.pid, signal.SIGINT)  # as a terminal does at Ctrl-C
        errors = process.stderr.read()
    assert process.returncode == 128 + signal.SIGINT, errors
    assert "ERROR" not in errors and "DagsterExecutionInterruptedError" not in errors
    assert "interrupted: what was finished is kept, and the next run goes on from there" in errors.splitlines()


def test_a_taken_port_is_one_line(light: LightProject) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = command(light, "home", "--port", str(port))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"error: PORT: {port} is taken, maybe by another `make ui`: end that, or say `make ui PORT={port + 1}`\n"
    assert command(light, "home", "--port", str(port)).stdout == f"{light.root / 'dagster'}\n"


def another(light: LightProject) -> Project:
    """A project with another recipe and the same store."""
    content = yaml.safe_load((light.root / "light.yaml").read_text())
    (light.root / "other.yaml").write_text(yaml.safe_dump({**content, "name": "other"}))
    return Project(load_recipe(str(light.root / "other.yaml")), light.project.execution, light.project.store_url)


def test_an_instance_of_another_recipe_is_refused_and_keeps_its_shards(light: LightProject) -> None:
    other = another(light)
    (light.root / "notes" / "a.jsonl").unlink()  # or no shard would be gone
    refused = r"serves the recipe 'light', not 'other': unset DAGSTER_HOME"
    with pytest.raises(UserError, match=refused):
        register(other, light.instance)
    with pytest.raises(UserError, match=refused):
        nightly_synthesis(other)(dg.build_schedule_context(instance=light.instance))
    with pytest.raises(UserError, match=refused):
        new_shards(other)(dg.build_sensor_context(instance=light.instance))
    done = command(light, "materialize", INSTPT_RECIPE=str(light.root / "other.yaml"))
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith(f"error: DAGSTER_HOME: the instance in {light.root / 'dagster'} serves")
    assert light.instance.get_dynamic_partitions("shards") == ["notes--a", "notes--b"]


@pytest.mark.parametrize("selection", ["key:", "nonsense:x", 'key:"raw_corpus" orr'])
def test_a_wrong_selection_is_one_line(light: LightProject, selection: str) -> None:
    with pytest.raises(ValueError, match=r"^SELECT: '.*' is no asset selection \(such are [^\n]*\)$"):
        materialize_recipe(light.project, light.instance, selection, [])


@pytest.mark.parametrize("module", ["materialize", "home", "clean_store"])
def test_a_store_that_cannot_be_reached_is_one_line(light: LightProject, module: str) -> None:
    wrong = light.root / "notes" / "a.jsonl" / "store"
    done = command(light, module, INSTPT_STORE=str(wrong))
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if line]
    assert line.startswith(f"error: INSTPT_STORE: the store {wrong} cannot be reached: ")


@pytest.mark.parametrize(
    "endpoint",
    [
        pytest.param("nonsense", id="wrong URL"),
        pytest.param("http://127.0.0.1:9", id="nobody listens", marks=pytest.mark.slow),  # it is asked again for most of a minute
    ],
)
def test_an_s3_server_that_does_not_answer_is_one_line(light: LightProject, endpoint: str) -> None:
    settings = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_ENDPOINT_URL": endpoint}
    done = command(light, "home", INSTPT_STORE="s3://bucket/store", **settings)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: INSTPT_STORE: the store s3://bucket/store cannot be reached: ")


def test_the_instance_follows_the_shipped_configuration_and_keeps_an_own_one(
    light: LightProject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "instance"))
    shipped = tmp_path / "shipped.yaml"
    shutil.copy(home.CONFIGURATION, shipped)
    monkeypatch.setattr(home, "CONFIGURATION", shipped)
    configuration = home.prepare_home(light.project.recipe) / "dagster.yaml"

    shipped.write_text("telemetry: {enabled: false}\n")
    home.prepare_home(light.project.recipe)
    assert configuration.read_text() == shipped.read_text() and capsys.readouterr().err == ""

    configuration.write_text("nux: {enabled: false}\n")
    home.prepare_home(light.project.recipe)
    assert capsys.readouterr().err == ""
    shipped.write_text("telemetry: {enabled: true}\n")
    for said in (f"{configuration} is kept as it is, unlike {shipped}: compare them, or delete it to take that one\n", ""):
        home.prepare_home(light.project.recipe)
        assert configuration.read_text() == "nux: {enabled: false}\n" and capsys.readouterr().err == said
