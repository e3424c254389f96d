"""What a mixture reads of a tokenized artifact: once, whatever is mixed, and never its tokens."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from instpt_assets.mixture.arrays import RowWriter
from instpt_assets.mixture.mix import build_mixture
from instpt_assets.mixture.row_index import read_row_index, stored_indices
from instpt_assets.recipe.arms import Component
from instpt_assets.store.making import find_or_make
from instpt_assets.store.manifest import Spec
from instpt_assets.store.preview import PREVIEW
from instpt_assets.store.store import Artifact, Store


def write(out: Path, documents: Sequence[Sequence[str]], components: Sequence[str] = ()) -> None:
    columns = [pa.field("component", pa.string())] if components else []
    with RowWriter(out, vocab_size=100, eos_id=0, columns=columns) as writer:
        ids = [[1] * (place % 7 + 1) for place in range(len(documents))]
        names = [f"row/{place}" for place in range(len(documents))]
        values: dict[str, Any] = {"row_id": names, "document_ids": documents, "num_bytes": [1] * len(names), "component": components}
        writer.append(*writer.flatten(ids), values)


def put(store: Store, shard: str) -> Artifact:
    """Tokens of 20 documents of a shard."""

    def build(spec: Spec, inputs: object, out: Path) -> dict[str, Any]:
        write(out, [[f"{shard}/{place}"] for place in range(20)])
        return {}

    spec = Spec(asset="tokenized_raw", partition=shard, code_version=1, recipe={}, inputs=())
    return find_or_make(store, spec, build).artifact


def test_an_index_knows_lengths_documents_and_components(tmp_path: Path) -> None:
    write(tmp_path / "texts", [["a", "b"], ["c"], ["a", "d", "e"]])
    texts = read_row_index(tmp_path / "texts")
    assert texts.num_tokens.tolist() == [2, 3, 4]
    assert texts.num_documents.tolist() == [2, 1, 3]
    assert len(set(texts.documents.tolist())) == 5
    write(tmp_path / "raw", [["d"], ["a"], ["x"]])
    raw = read_row_index(tmp_path / "raw")
    assert raw.rows_with(texts.documents).tolist() == [True, True, False]
    assert texts.rows_with(raw.documents[:1]).tolist() == [False, False, True]
    write(tmp_path / "instructions", [[]] * 3, ["tuning", "general", "tuning"])
    instructions = read_row_index(tmp_path / "instructions")
    assert instructions.rows_of("tuning").tolist() == [True, False, True]
    assert not instructions.rows_of("tuning_pairs").any()


def test_one_more_shard_reads_only_its_own_files_and_no_token(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    artifacts = {("tokenized_raw", f"c--{number}"): put(store, f"c--{number}") for number in range(5)}
    read: list[str] = []
    fetch = Store.fetch
    monkeypatch.setattr(
        Store,
        "fetch",
        lambda self, artifact, file: read.append(f"{artifact.manifest.partition}/{file.name}") or fetch(self, artifact, file),
    )

    def mix(name: str) -> list[str]:
        read.clear()
        arguments = {"seed": 0, "token_budget": 640, "batch_tokens": 64, "sequence_length": 64}
        build_mixture([Component(component="corpus")], stored_indices(store, artifacts), out=tmp_path / name, **arguments)
        return sorted(read)

    files = ("data-00000.parquet", "offsets.npy")
    assert mix("first") == [f"c--{number}/{name}" for number in range(5) for name in files]
    assert mix("again") == []
    artifacts["tokenized_raw", "c--5"] = put(store, "c--5")
    assert mix("one_more") == [f"c--5/{name}" for name in files]
    for name in ("pieces.npy", PREVIEW):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_a_damaged_index_is_made_again(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store"))
    artifacts = {("tokenized_raw", "c--0"): put(store, "c--0")}
    whole = stored_indices(store, artifacts)["tokenized_raw", "c--0"]()
    (cached,) = (store.local_cache()).rglob("*.bin")
    content = cached.read_bytes()
    for damaged in (b"", content[:100], content[:80] + b"\xff" * 8 + content[88:]):
        cached.write_bytes(damaged)
        again = stored_indices(store, artifacts)["tokenized_raw", "c--0"]()
        assert np.array_equal(again.num_tokens, whole.num_tokens)
        assert np.array_equal(again.documents, whole.documents)
        assert cached.read_bytes() == content
