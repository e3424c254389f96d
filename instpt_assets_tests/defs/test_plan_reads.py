"""What a look at the store costs: on S3 every read is a request."""

from collections import Counter
from pathlib import Path

import pytest
from light_project import CORPUS, LightProject

from instpt_assets.defs.shards import range_tags


def test_a_plan_reads_each_pointer_and_manifest_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    light = LightProject(tmp_path, shards="ab")
    shards = range_tags("notes--a", "notes--b")
    assert light.run("shards", *CORPUS, tags=shards).success
    assert light.run("synthesizer").success
    assert light.run("shards", "tokenized_raw", tags=shards).success

    plan, reads = light.project.plan(), Counter[str]()
    read = plan.store.read_text
    monkeypatch.setattr(plan.store, "read_text", lambda path: reads.update([path]) or read(path))
    assert all(plan.shard_is_current(key) for key in plan.registered_shards)
    assert plan.arm_shards("vanilla") == ["notes--a", "notes--b"]
    assert set(reads.values()) == {1}
    registrations = [path for path in reads if "/_registered/" in path]
    assert len(registrations) == 1
    # Of four stages of both shards, duplicate_documents and tokenizer.
    assert len(reads) - len(registrations) == 2 * (4 * 2 + 2)
