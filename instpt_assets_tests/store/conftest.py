"""A store on disk and one on an S3 server."""

import os
from pathlib import Path

import pytest

from instpt_assets.store.store import Store


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
