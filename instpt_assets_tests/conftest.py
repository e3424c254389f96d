"""What every test shares: no network, no user's settings, the real data sets where the machine has them."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

# Before anything imports the libraries that read them; children inherit them.
for name in [name for name in os.environ if name.startswith(("INSTPT_", "DAGSTER_", "AWS_")) and name != "INSTPT_SHARED_DATA"]:
    del os.environ[name]
os.environ.update(
    HF_HUB_OFFLINE="1",
    HF_DATASETS_OFFLINE="1",
    DAGSTER_DISABLE_TELEMETRY="1",
    TOKENIZERS_PARALLELISM="false",
    VLLM_LOGGING_LEVEL="ERROR",
    VLLM_NO_USAGE_STATS="1",
)


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
