"""What every test shares: no network, no user's settings, the real data sets where the machine has them."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from instpt_assets.store.store import Store

# Before anything imports the libraries that read them; children inherit them.
for name in [name for name in os.environ if name.startswith(("INSTPT_", "DAGSTER_", "AWS_", "WANDB_")) and name != "INSTPT_SHARED_DATA"]:
    del os.environ[name]
os.environ.update(
    HF_HUB_OFFLINE="1",
    HF_DATASETS_OFFLINE="1",
    DAGSTER_DISABLE_TELEMETRY="1",
    TOKENIZERS_PARALLELISM="false",
    VLLM_LOGGING_LEVEL="ERROR",
    VLLM_NO_USAGE_STATS="1",
    WANDB_MODE="disabled",  # whoever is logged in there wants no runs of tests
)

# The same cases in every run; `--hypothesis-profile=default` draws new ones.
settings.register_profile("repeatable", derandomize=True, database=None, deadline=None)
settings.load_profile("repeatable")


@pytest.fixture
def golden() -> Callable[[str, object], None]:
    """Compares a stage's output (a digest, or several by name) and its code versions with what `goldens.json` records side by side."""
    from instpt_assets.defs.plan import CODE_VERSIONS

    recorded = json.loads(Path(__file__).with_name("goldens.json").read_text())

    def compare(name: str, output: object) -> None:
        stages = recorded[name]["code_versions"]
        found = {"output": output, "code_versions": {stage: CODE_VERSIONS[stage] for stage in stages}}
        if found != recorded[name]:
            pytest.fail(
                f"{name}: if the output changed on purpose, raise CODE_VERSIONS (defs/plan.py) of {', '.join(stages)}; "
                f"then record in goldens.json: {json.dumps(found)}"
            )

    return compare


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real excerpts of public data sets, for tests of formats; `INSTPT_SHARED_DATA` names it."""
    folder = os.environ.get("INSTPT_SHARED_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("INSTPT_SHARED_DATA names no folder")
    return Path(folder)


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """URL of an S3 server in memory."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


@pytest.fixture
def s3(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The environment of a user of that server, for this process and its children; its URL."""
    settings = {
        "AWS_ENDPOINT_URL": s3_server,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    return s3_server


@pytest.fixture
def s3_store(s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store in a bucket of its own; its local copies lie in `tmp_path/cache`."""
    import boto3
    import s3fs

    monkeypatch.setenv("INSTPT_CACHE", str(tmp_path / "cache"))
    bucket = f"bucket-{os.urandom(4).hex()}"
    boto3.client("s3").create_bucket(Bucket=bucket)
    s3fs.S3FileSystem.clear_instance_cache()
    return Store(f"s3://{bucket}/prefix")


@pytest.fixture(params=["disk", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """Either."""
    return Store(str(tmp_path / "store")) if request.param == "disk" else request.getfixturevalue("s3_store")
