"""A folder that mixes every format, and all of the real corpora: the counts add up."""

import gzip
import json
from pathlib import Path

import polars as pl
import pytest
import zstandard

from instpt_assets.corpus.ingest import ingest
from instpt_assets.corpus.shards import list_shards, shard_digest
from instpt_assets.recipe.corpora import Corpus


def counts(corpus: Corpus, out: Path) -> tuple[int, int, int]:
    """Records read, documents, rejected, over all shards."""
    total = [0, 0, 0]
    ids: set[str] = set()
    for shard in list_shards("c", corpus):
        (out / shard.key).mkdir(parents=True)
        statistics = ingest(shard, corpus, out=out / shard.key, digest=shard_digest(shard))
        documents = pl.read_parquet(out / shard.key / "data-*.parquet")
        assert documents.height == statistics["num_documents"]
        assert pl.read_parquet(out / shard.key / "rejected.parquet").height == statistics["num_rejected"]
        total = [a + statistics[name] for a, name in zip(total, ("num_read", "num_documents", "num_rejected"), strict=True)]
        ids |= set(documents["document_id"])
    assert len(ids) == total[1]
    return total[0], total[1], total[2]


@pytest.mark.parametrize("documents_per_shard", [None, 2])
def test_a_folder_of_all_formats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, documents_per_shard: int | None) -> None:
    monkeypatch.setenv("INSTPT_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "in"
    (folder / "deep").mkdir(parents=True)
    lines = b"\n".join(json.dumps({"text": f"text {n}"}).encode() for n in range(5)) + b'\n{"title": "no text"}\n\n'
    texts = b"one<|endoftext|>two<|endoftext|>\xff<|endoftext|>\n"
    for compress, ending in ((bytes, ""), (gzip.compress, ".gz"), (zstandard.compress, ".zst")):
        (folder / f"lines{ending.replace('.', '-')}.jsonl{ending}").write_bytes(compress(lines))
        (folder / f"deep/texts.txt{ending}").write_bytes(compress(texts))
        (folder / f"more.ndjson{ending}").write_bytes(compress(lines))
    pl.DataFrame({"text": ["a", None, "c"], "n": [1, 2, 3]}).write_parquet(folder / "table.parquet")
    (folder / "README.md").write_text("no document")
    corpus = Corpus(source=str(folder), document_separator="<|endoftext|>", documents_per_shard=documents_per_shard)
    assert counts(corpus, tmp_path / "out") == (6 * 6 + 3 * 3 + 3, 6 * 5 + 3 * 2 + 2, 6 + 3 + 1)


@pytest.mark.slow
def test_the_real_corpora(tmp_path: Path, shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INSTPT_CACHE", str(tmp_path / "cache"))
    found = {}
    for folder in sorted((shared_data / "corpora").iterdir()):
        source = str(folder)
        found[folder.name] = counts(Corpus(source=source, id_field="id"), tmp_path / "whole" / folder.name)
        in_parts = counts(Corpus(source=source, id_field="id", documents_per_shard=100), tmp_path / "parts" / folder.name)
        assert in_parts == found[folder.name]
    print(found)
    assert all(read == documents + rejected and documents > 0 for read, documents, rejected in found.values())
