"""Golden outputs of the corpus stages: where one changes, the stage's code version must be raised with it."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from instpt_assets.corpus.cleaning import clean
from instpt_assets.corpus.docstrings import read_docstring
from instpt_assets.corpus.duplicates import find_duplicates
from instpt_assets.corpus.ingest import ingest
from instpt_assets.corpus.passages import cut_passages
from instpt_assets.corpus.shards import list_shards
from instpt_assets.corpus.signatures import write_signatures
from instpt_assets.recipe.cleaning import Cleaning
from instpt_assets.recipe.corpora import Corpus
from instpt_assets.recipe.deduplication import Deduplication


def digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def test_stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, golden: Callable[[str, object], None]) -> None:
    monkeypatch.chdir(tmp_path)
    texts = [" ".join(f"{word}{i % (n + 3)}" for i in range(60)) for n, word in enumerate(("sun", "rain", "sun", "wind", "sun"))]
    Path("in.jsonl").write_text(
        "".join(json.dumps({"text": text, "n": n}) + "\n" for n, text in enumerate([*texts, texts[0], "x\r\ny", " "]))
    )
    corpus = Corpus(source="in.jsonl", license="CC0")
    (shard,) = list_shards("golden", corpus)
    folders = {name: tmp_path / name for name in ("raw", "signatures", "duplicates", "clean")}
    for folder in folders.values():
        folder.mkdir()
    rules = Deduplication(num_permutations=16, shingle_words=2, threshold=0.5)
    tables = [folders["raw"] / "data-00000.parquet"]
    ingest(shard, corpus, out=folders["raw"])
    write_signatures(tables, rules, out=folders["signatures"])
    find_duplicates({shard.key: folders["signatures"]}, rules, out=folders["duplicates"])
    clean(tables, folders["duplicates"] / f"removed/{shard.key}.parquet", Cleaning(min_characters=5), out=folders["clean"])
    found = {
        name: digest({str(path.relative_to(folder)): pl.read_parquet(path).rows() for path in sorted(folder.rglob("*.parquet"))})
        for name, folder in folders.items()
    }
    for name, stage in zip(
        ("raw", "signatures", "duplicates", "clean"),
        ("raw_corpus", "document_signatures", "duplicate_documents", "clean_corpus"),
        strict=True,
    ):
        golden(stage, found[name])


def test_passages_and_docstrings(golden: Callable[[str, object], None]) -> None:
    text = "\n\n".join(f"Paragraph {i} says this. " * i + "And " + "on " * i for i in range(12))
    passages = cut_passages(text, lambda texts: [len(text) // 4 for text in texts], 40)
    golden("passages", digest(passages))
    golden("docstrings", digest(read_docstring(DOCSTRING).prose))


DOCSTRING = """Do *it* with ``x``.

:param x: what
:returns: that

.. note:: Mind
   the gap.

Args:
    y (int): more

List:

* a
* b::

    code
"""
