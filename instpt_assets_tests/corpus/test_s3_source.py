"""A corpus on S3, through a real HTTP server."""

import json
from pathlib import Path
from typing import Any

import boto3
import polars as pl
import pytest

from instpt_assets.corpus.files import SourceError
from instpt_assets.corpus.ingest import ingest
from instpt_assets.corpus.shards import list_shards, shard_digest
from instpt_assets.recipe.corpora import Corpus


@pytest.fixture
def corpora(s3: str) -> Any:
    """A client of the S3 server, which has the bucket `corpora`."""
    client = boto3.client("s3")
    client.create_bucket(Bucket="corpora")
    return client


def test_shards_digests_and_documents(corpora, tmp_path: Path) -> None:
    def put(key: str, text: str) -> None:
        corpora.put_object(Bucket="corpora", Key=key, Body=json.dumps({"text": text}).encode())

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
    with pytest.raises(SourceError, match="changed while it was read"):
        ingest(shards[0], corpus, out=tmp_path, digest=before[0])
    assert ingest(shards[0], corpus, out=tmp_path, digest=after["c--a"])["num_documents"] == 1
    assert pl.read_parquet(tmp_path / "data-*.parquet")["text"].to_list() == ["other"]
    assert [shard.key for shard in list_shards("c", Corpus(source="s3://corpora/mine/*.jsonl"))] == ["c--a", "c--c"]
