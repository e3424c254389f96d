"""What every test shares: no network, no user's settings, the real data sets where the machine has them."""

import os
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
