"""A corpus on S3, through a real HTTP server."""

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from instpt_assets.corpus.ingest import ingest
from instpt_assets.corpus.shards import SourceError, list_shards, shard_digest
from instpt_assets.recipe.corpora import Corpus


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    """A boto3 client of a moto server that has the bucket `corpora`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    arguments = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        url = f"http://127.0.0.1:{port}"
        for name, value in {
            "ENDPOINT_URL": url,
            "ACCESS_KEY_ID": "test",
            "SECRET_ACCESS_KEY": "test",
            "DEFAULT_REGION": "us-east-1",
        }.items():
            monkeypatch.setenv(f"AWS_{name}", value)
        import boto3

        client = boto3.client("s3", endpoint_url=url)
        client.create_bucket(Bucket="corpora")
        yield client
    finally:
        server.terminate()
        server.wait()


def test_shards_digests_and_documents(s3, tmp_path: Path) -> None:
    def put(key: str, text: str) -> None:
        s3.put_object(Bucket="corpora", Key=key, Body=json.dumps({"text": text}).encode())

    corpus = Corpus(source="s3://corpora/mine")
    with pytest.raises(SourceError, match="matches no file"):
        list_shards("c", corpus)
    put("mine/a.jsonl", "one")
    put("mine/sub/b.jsonl", "two")
    put("mine/README.md", "no corpus")
    shards = list_shards("c", corpus)
    assert [(s.key, s.url) for s in shards] == [("c--a", "s3://corpora/mine/a.jsonl"), ("c--sub.b", "s3://corpora/mine/sub/b.jsonl")]
    before = [shard_digest(shard) for shard in shards]
    put("mine/a.jsonl", "other")
    put("mine/c.jsonl", "three")
    after = {shard.key: shard_digest(shard) for shard in list_shards("c", corpus)}
    assert list(after) == ["c--a", "c--c", "c--sub.b"]
    assert after["c--a"] != before[0] and after["c--sub.b"] == before[1]
    assert ingest(shards[0], corpus, out=tmp_path)["num_documents"] == 1
    assert pl.read_parquet(tmp_path / "data-*.parquet")["text"].to_list() == ["other"]
    assert [shard.key for shard in list_shards("c", Corpus(source="s3://corpora/mine/*.jsonl"))] == ["c--a", "c--c"]
