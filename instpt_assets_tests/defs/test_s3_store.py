"""The same assets with the store on S3: artifacts, registered shards, local copies."""

from pathlib import Path

import boto3
import polars as pl
import pytest
from light_project import CORPUS
from project_folder import ProjectFolder

from instpt_assets.store.registration import registered_shards
from instpt_assets.store.store import Store

pytestmark = pytest.mark.timeout(200)


def test_corpus_tokens_and_mixture_are_materialized_on_s3_and_found_again(s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INSTPT_CACHE", str(tmp_path / "cache"))
    boto3.client("s3").create_bucket(Bucket="pretraining")
    folder = ProjectFolder(tmp_path / "project", store="s3://pretraining/store")
    assets = (*CORPUS, "tokenizer", "tokenized_raw", "vanilla/tokenized_mixture")
    selection = " or ".join(f'key:"{asset}"' for asset in assets)
    result = folder.materialize("--select", selection)
    assert result.returncode == 0, result.stderr[-3000:]
    assert not (tmp_path / "project" / "store").exists()

    store = Store("s3://pretraining/store")
    assert registered_shards(store, "mine") == ["notes--a", "notes--b"]
    artifact = store.current("mine", "clean_corpus", "notes--a")
    assert artifact is not None
    assert pl.read_parquet(artifact.tables()).height == 8

    # A mixture is made from offsets and tables of rows: no token is downloaded for it.
    assert len(list((tmp_path / "cache" / "tokenized_raw").rglob("offsets.npy"))) == 2
    assert not list((tmp_path / "cache" / "tokenized_raw").rglob("tokens.npy"))

    again = folder.materialize("--select", selection)
    assert again.returncode == 0 and ": made" not in again.stdout + again.stderr
    assert "test" not in {
        word
        for manifest in store.fs.find("pretraining")
        if manifest.endswith(".json")
        for word in store.fs.cat_file(manifest).decode().split('"')
    }
