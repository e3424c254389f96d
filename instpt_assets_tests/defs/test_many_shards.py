"""A corpus of many shards: what one more costs, counted in artifacts made and files read."""

import json
from collections import Counter
from pathlib import Path

import pytest
from light_project import CORPUS, LightProject

from instpt_assets.defs.materialize import materialize_recipe
from instpt_assets.defs.shards import register
from instpt_assets.store.store import Store

NUM_SHARDS = 50


def write(light: LightProject, number: int, texts: list[str]) -> None:
    lines = [json.dumps({"id": f"{number}-{place}", "text": text}) for place, text in enumerate(texts)]
    (light.root / "notes" / f"many{number:04}.jsonl").write_text("\n".join(lines) + "\n")


def manifests(light: LightProject) -> set[str]:
    """`<asset>/<partition>/<identity>` of everything that is committed."""
    store = light.root / "store"
    return {str(path.parent.relative_to(store)) for asset in CORPUS for path in (store / asset).glob("*/*/manifest.json")}


@pytest.mark.slow
def test_one_more_shard_costs_its_own_stages_and_one_pass_over_the_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    light = LightProject(tmp_path, shards="a")
    for number in range(NUM_SHARDS):
        write(light, number, [f"note {place} of shard {number} says {number * 7919 + place} things" for place in range(3)])
    assert materialize_recipe(light.project, light.instance, "group:corpus", [])
    before, lists = manifests(light), light.project.plan().current("duplicate_documents").manifest.by_name
    identities = light.identities("clean_corpus")
    assert len(identities) == NUM_SHARDS + 1

    write(light, NUM_SHARDS, ["note 1 of shard 5 says 39596 things", "something that nobody wrote before"])
    new = register(light.project, light.instance)[-1]
    read, fetched = Counter[str](), Counter[str]()
    read_text, fetch = Store.read_text, Store.fetch
    with monkeypatch.context() as patch:
        patch.setattr(Store, "read_text", lambda store, path: read.update([path]) or read_text(store, path))
        patch.setattr(Store, "fetch", lambda store, artifact, file: fetched.update([file.path]) or fetch(store, artifact, file))
        assert materialize_recipe(light.project, light.instance, "group:corpus", [new])

    made = [path.split("/")[:2] for path in manifests(light) - before]
    assert sorted(made) == [[asset, "all" if asset == "duplicate_documents" else new] for asset in sorted(CORPUS)]
    plan = light.project.plan()
    after = plan.current("duplicate_documents").manifest.by_name
    assert after[f"removed/{new}.parquet"].sha256 != lists["removed/notes--a.parquet"].sha256, "its copy of an old note is not removed"
    assert all(after[name].sha256 == file.sha256 for name, file in lists.items() if name.startswith("removed/"))
    assert light.identities("clean_corpus").items() > identities.items()
    # Of every shard its pointer, and its manifest twice: for the identity, and to read by it. Of every shard's signatures each file once.
    assert sum(read.values()) < 3 * NUM_SHARDS + 60 and max(read.values()) < 10
    assert sum(fetched.values()) < 2 * NUM_SHARDS + 30

    assert [key for key in plan.registered_shards if not plan.is_current("clean_corpus", key)] == []
