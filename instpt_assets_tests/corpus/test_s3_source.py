"""A corpus on S3, through a real HTTP server."""

import gzip
import json
from pathlib import Path
from typing import Any

import boto3
import polars as pl
import pytest

from instpt_assets.corpus.files import SourceError
from instpt_assets.corpus.ingest import ingest
from instpt_assets.corpus.shards import Shard, list_shards, shard_digest
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
    for source in ("s3://nobucket/mine", "s3://nobucket/*.jsonl"):
        with pytest.raises(SourceError, match="nobucket.*: the bucket does not exist"):
            list_shards("c", Corpus(source=source))
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


@pytest.mark.parametrize("ending", ["jsonl", "jsonl.gz", "parquet"])
def test_objects_in_parts_keep_the_shards_that_an_append_leaves_as_they_are(corpora, tmp_path: Path, ending: str) -> None:
    corpus = Corpus(source=f"s3://corpora/{ending}", documents_per_shard=4)

    def put(num: int) -> list[Shard]:
        file = tmp_path / f"a.{ending}"
        rows = [{"text": f"text {number}"} for number in range(num)]
        data = "".join(json.dumps(row) + "\n" for row in rows).encode()
        if ending == "parquet":
            pl.DataFrame(rows).write_parquet(file, row_group_size=3)
        else:
            file.write_bytes(gzip.compress(data) if ending == "jsonl.gz" else data)
        corpora.upload_file(str(file), "corpora", f"{ending}/a.{ending}")
        return list_shards("c", corpus)

    before, after = put(10), put(13)
    assert [shard.url for shard in after] == [f"s3://corpora/{ending}/a.{ending}#{number:05d}" for number in range(4)]
    digests = [shard_digest(shard) for shard in after]
    assert [shard_digest(shard) == new for shard, new in zip(before, digests, strict=False)] == [True, True, False]
    found: list[str] = []
    for shard, digest in zip(after, digests, strict=True):
        (tmp_path / shard.key).mkdir()
        ingest(shard, corpus, out=tmp_path / shard.key, digest=digest)
        found += pl.read_parquet(tmp_path / shard.key / "data-*.parquet")["text"].to_list()
    assert found == [f"text {number}" for number in range(13)]
    put(9)
    with pytest.raises(SourceError, match="changed after it was listed"):
        ingest(before[2], corpus, out=tmp_path, digest=shard_digest(before[2]))
    assert ingest(before[0], corpus, out=tmp_path, digest=digests[0])["num_documents"] == 4
