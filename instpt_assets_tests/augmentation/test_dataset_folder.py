"""Where a dataset folder cannot be written."""

from pathlib import Path

import pytest
import s3fs

from instpt_assets.augmentation.dataset_folder import ExportError, write_dataset


def test_s3_without_credentials_or_bucket_is_one_message(s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(ExportError, match="^OUT: s3://nobucket/data cannot be written: The specified bucket does not exist"):
        write_dataset("s3://nobucket/data", (), card="", provenance={})
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(ExportError, match="^OUT: s3://nobucket/data cannot be written: Unable to locate credentials"):
        write_dataset("s3://nobucket/data", (), card="", provenance={})
    s3fs.S3FileSystem.clear_instance_cache()
