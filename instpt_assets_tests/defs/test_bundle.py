"""The command that writes a training's bundle: from what is materialized, and errors that say what it needs."""

from pathlib import Path

import pytest
from light_project import CORPUS, LightProject

from instpt_assets.defs.bundle import bundle
from instpt_assets.errors import UserError
from instpt_assets.training.bundle import open_bundle
from instpt_assets.training.job import open_held_out, open_sequences


def range_tags(first: str, last: str) -> dict[str, str]:
    return {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}


def test_an_arms_training_is_bundled_from_its_mixture(tmp_path: Path) -> None:
    light = LightProject(tmp_path, shards="ab")
    out = tmp_path / "bundle"
    with pytest.raises(UserError, match="tokenized_mixture"):
        bundle(light.project, "vanilla/pretrained_checkpoint", "seed-0", out, 12)
    shards = range_tags("notes--a", "notes--b")
    assert light.run("shards", *CORPUS, tags=shards).success
    assert light.run("synthesizer").success
    assert light.run("shards", "tokenized_raw", tags=shards).success
    assert light.run("seeds", "vanilla/tokenized_mixture", tags=range_tags("seed-0", "seed-0")).success
    told = bundle(light.project, "vanilla/pretrained_checkpoint", "seed-0", out, 0.002)
    assert "16 sequences" in told and "python -m instpt_assets.training.bundle bundle" in told
    assert max(path.stat().st_size for path in out.rglob("*") if path.is_file()) <= 2000
    job = open_bundle(out)
    assert len(open_sequences(job)) == 16 and open_held_out(job) is None
    assert job.execution == light.project.execution and job.optimization == light.project.recipe.pretraining.optimization


def test_what_is_no_training_is_told(tmp_path: Path) -> None:
    light = LightProject(tmp_path, shards="a")
    for asset, seed, told in (
        ("vanilla/eval_scores", "seed-0", "is no training of the recipe 'light' \\(pretrained_checkpoint of vanilla\\)"),
        ("instruct/pretrained_checkpoint", "seed-0", "is no training"),
        ("vanilla/instruction_tuned_checkpoint", "seed-0", "is no training"),
        ("vanilla/pretrained_checkpoint", "seed-1", "has no 'seed-1' \\(it has: seed-0\\)"),
    ):
        with pytest.raises(ValueError, match=told):
            bundle(light.project, asset, seed, tmp_path / "bundle", 12)
