"""A corpus whose files are cut into several shards, from the sensor to the store."""

import os
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
from light_project import LightProject

from instpt_assets.corpus import parts
from instpt_assets.defs.automation import new_shards
from instpt_assets.defs.build import build_definitions
from instpt_assets.defs.partitions import SHARDS
from instpt_assets.defs.shards import range_tags, register


@pytest.fixture
def light(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LightProject:
    """Two files of four documents each, three documents a shard."""
    monkeypatch.setenv("INSTPT_CACHE", str(tmp_path / "cache"))
    corpora = {"notes": {"source": str(tmp_path / "notes"), "id_field": "id", "documents_per_shard": 3}}
    pinned = {"vocab_size": 400, "pinned_shards": ["notes--a-00000"]}
    return LightProject(tmp_path, shards="ab", corpora=corpora, tokenizer=pinned)


def append(light: LightProject, *ids: str) -> Path:
    file = light.root / "notes" / "a.jsonl"
    with file.open("a") as stream:
        stream.writelines(f'{{"id": "{name}", "text": "Text of {name}."}}\n' for name in ids)
    return file


def stale(light: LightProject) -> list[str]:
    plan = light.project.plan()
    return [key for key in plan.registered_shards if not plan.is_current("raw_corpus", key)]


def test_an_append_leaves_all_shards_of_the_file_but_the_last_as_they_are(light: LightProject) -> None:
    shards = register(light.project, light.instance)
    assert shards == ["notes--a-00000", "notes--a-00001", "notes--b-00000", "notes--b-00001"]
    assert light.run("shards", "raw_corpus", tags=range_tags(shards[0], shards[-1])).success
    assert stale(light) == []
    append(light, "x", "y", "z")
    assert register(light.project, light.instance) == [*shards, "notes--a-00002"]
    assert stale(light) == ["notes--a-00001", "notes--a-00002"]
    assert light.run("shards", "raw_corpus", tags=range_tags("notes--a-00001", "notes--a-00002")).success
    plan = light.project.plan()
    tables = [table for key in plan.registered_shards for table in plan.current("raw_corpus", key).tables()]
    ids = pl.concat([pl.read_parquet(table) for table in tables])["document_id"].to_list()
    assert sorted(ids) == [f"notes/{name}" for name in ("a0", "a1", "a2", "a3", "b0", "b1", "b2", "b3", "x", "y", "z")]
    assert stale(light) == []


def test_the_sensor_registers_a_new_part_when_its_file_has_settled(light: LightProject, monkeypatch: pytest.MonkeyPatch) -> None:
    def evaluate() -> Any:
        return new_shards(light.project)(dg.build_sensor_context(instance=light.instance))

    file = append(light, "x", "y", "z")
    with monkeypatch.context() as patch:
        patch.setattr(parts, "read_raw", None)  # while it grows it is not read again and again
        assert isinstance(evaluate(), dg.SkipReason)
    os.utime(file, (1, 1))
    (request,) = evaluate().dynamic_partitions_requests
    assert request.partitions_def_name == SHARDS.name and request.partition_keys == ["notes--a-00002"]


def test_the_sensor_brings_no_shard_back_whose_file_is_gone(light: LightProject) -> None:
    register(light.project, light.instance)
    (light.root / "notes" / "a.jsonl").unlink()
    shards = register(light.project, light.instance)
    assert shards == light.instance.get_dynamic_partitions(SHARDS.name or "") == ["notes--b-00000", "notes--b-00001"]
    os.utime(light.root / "notes" / "b.jsonl", (1, 1))
    assert isinstance(new_shards(light.project)(dg.build_sensor_context(instance=light.instance)), dg.SkipReason)


def test_definitions_load_without_reading_a_file(light: LightProject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "read_raw", None)
    monkeypatch.setattr(parts, "file_digest", None)
    build_definitions(light.project)
