"""`make materialize` over some shards: what can be made of them is made, and what waits for others is named."""

import json
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from light_project import LightProject

from instpt_assets.corpus.ingest import ingest
from instpt_assets.corpus.shards import Shard
from instpt_assets.defs import corpus
from instpt_assets.defs.materialization import latest
from instpt_assets.defs.materialize import Left, incomplete_arms, materialize_recipe

VANILLA = {"mixture": [{"component": "corpus"}]}


@pytest.fixture
def light(tmp_path: Path) -> LightProject:
    return LightProject(tmp_path, shards="abc", arms={"vanilla": VANILLA, "only_b": {**VANILLA, "shards": ["notes--b", "notes--c"]}})


def made(light: LightProject) -> dict[str, set[str]]:
    """The shards with a current artifact, by asset."""
    plan = light.project.plan()
    assets = ("raw_corpus", "clean_corpus", "tokenized_raw")
    return {asset: {key[-1] for key in plan.registered_shards if plan.is_current(asset, key)} for asset in assets}


def test_some_shards_are_made_as_far_as_they_go(light: LightProject, capsys: pytest.CaptureFixture[str]) -> None:
    assert materialize_recipe(light.project, light.instance, "", ["notes--b"])
    # The tokenizer learns from a.
    assert made(light) == {"raw_corpus": {"a", "b"}, "clean_corpus": {"a", "b"}, "tokenized_raw": {"b"}}
    output = capsys.readouterr().out
    assert "Not made, for want of other shards than SHARDS names: only_b, vanilla, comparison_report\n" in output
    assert "  vanilla: 2 of 3 shards are not tokenized yet (notes--a, notes--c): " in output
    assert "  only_b: 1 of 2 shards are not tokenized yet (notes--c): " in output
    assert light.project.store.current("light", "vanilla/tokenized_mixture", "seed-0") is None


def test_a_selected_arm_without_its_shards_is_a_failure(light: LightProject, capsys: pytest.CaptureFixture[str]) -> None:
    assert materialize_recipe(light.project, light.instance, "", ["notes--b"])
    assert not materialize_recipe(light.project, light.instance, 'key:"only_b/tokenized_mixture"', ["notes--b"])
    assert "only_b/tokenized_mixture failed: only_b/tokenized_mixture/seed-0: only_b: 1 of 2 shards" in capsys.readouterr().err


def test_an_arm_whose_shards_are_there_is_made(
    light: LightProject, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = []

    def execute(definitions: object, instance: object, step: object, left: object = None) -> bool:
        ran.append({key.to_user_string() for key in step.assets})  # type: ignore[attr-defined]
        return True

    assert materialize_recipe(light.project, light.instance, "", ["notes--b"])
    assert materialize_recipe(light.project, light.instance, 'key:"raw_corpus" or key:"tokenized_raw"', ["notes--b"])
    assert materialize_recipe(light.project, light.instance, "group:corpus", ["notes--c"])
    assert materialize_recipe(light.project, light.instance, 'key:"tokenized_raw"', ["notes--c"])
    monkeypatch.setattr("instpt_assets.defs.materialize.execute", execute)
    assert materialize_recipe(light.project, light.instance, "", ["notes--b"])
    assert {"only_b/tokenized_mixture", "only_b/pretrained_checkpoint", "only_b/eval_scores"} == ran[-1]
    assert "SHARDS names: vanilla, comparison_report\n" in capsys.readouterr().out


def test_pins_that_lie_nowhere_are_named_before_anything_is_made(tmp_path: Path) -> None:
    tokenizer = {"vocab_size": 400, "pinned_shards": ["notes--x"]}
    light = LightProject(tmp_path, shards="ab", tokenizer=tokenizer, arms={"some": {**VANILLA, "shards": ["notes--y"]}})
    with pytest.raises(ValueError, match=r"tokenizer\.pinned_shards: not registered: notes--x \(registered: notes--a, notes--b\)"):
        materialize_recipe(light.project, light.instance, "", [])
    with pytest.raises(ValueError, match=r"arms\.some\.shards: not registered: notes--y"):
        materialize_recipe(light.project, light.instance, "group:some", [])
    assert made(light)["raw_corpus"] == set()
    assert materialize_recipe(light.project, light.instance, "group:corpus", ["notes--a"])


def test_an_unreadable_file_holds_up_no_other_shard(light: LightProject, capsys: pytest.CaptureFixture[str]) -> None:
    light.break_shard("b")
    assert not materialize_recipe(light.project, light.instance, "group:corpus or group:tokens", [])
    assert made(light) == {key: {"a", "c"} for key in ("raw_corpus", "clean_corpus", "tokenized_raw")}
    output = capsys.readouterr()
    assert "raw_corpus failed: raw_corpus/notes--b: '" in output.err and "Traceback" not in output.err
    assert "Failed, for the reasons above: notes--b. The other shards are done." in output.out


def test_an_interrupted_run_is_not_taken_up_again_without_the_shards_that_failed(
    light: LightProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(shard: Shard, *arguments: Any, **options: Any) -> dict[str, Any]:
        if shard.key == "notes--c":
            raise KeyboardInterrupt
        return ingest(shard, *arguments, **options)

    light.break_shard("a")
    monkeypatch.setattr(corpus, "ingest", interrupted)
    with pytest.raises(KeyboardInterrupt):
        materialize_recipe(light.project, light.instance, "group:corpus", [])
    assert made(light)["raw_corpus"] == {"b"}
    assert len(light.instance.get_runs()) == 1


def test_arms_of_a_shard_that_failed_wait_even_if_an_earlier_state_of_it_is_there(light: LightProject) -> None:
    assert materialize_recipe(light.project, light.instance, "", ["notes--b"])
    assert materialize_recipe(light.project, light.instance, 'key:"raw_corpus" or key:"tokenized_raw"', ["notes--b"])
    for selection in ("group:corpus", 'key:"tokenized_raw"'):
        assert materialize_recipe(light.project, light.instance, selection, [])
    assert incomplete_arms(light.project, Left()) == {}
    assert incomplete_arms(light.project, Left(failed={"notes--c"})) == {
        "vanilla": "vanilla: waits for notes--c",
        "only_b": "only_b: waits for notes--c",
    }
    assert incomplete_arms(light.project, Left(failed={"notes--a"})) == {"vanilla": "vanilla: waits for notes--a"}


def test_a_shard_whose_records_are_all_rejected_is_warned_of(light: LightProject, capfd: pytest.CaptureFixture[str]) -> None:
    (light.root / "notes" / "b.jsonl").write_text('{"id": "b0", "body": "some text"}\n' * 3)
    assert materialize_recipe(light.project, light.instance, 'key:"raw_corpus"', ["notes--b"])
    output = "".join(capfd.readouterr())
    assert "WARNING: notes--b: 3 records read, 3 rejected: " in output and "is text_field (and id_field)" in output


def test_what_cleaning_loses_is_warned_of_in_the_terminal_and_in_the_ui(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    light = LightProject(tmp_path, shards="ab")
    for shard, ids in (("a", "ab"), ("b", "ab")):
        texts = light.texts[:2] if shard == "a" else light.texts[2:4]
        lines = [json.dumps({"id": name, "text": text}) for name, text in zip(ids, texts, strict=True)]
        (tmp_path / "notes" / f"{shard}.jsonl").write_text("\n".join(lines) + "\n")
    assert materialize_recipe(light.project, light.instance, "group:corpus", [])
    terminal = "".join(capfd.readouterr())
    plan = light.project.plan()
    assert "warning" not in plan.current("clean_corpus", "notes--a").manifest.statistics
    lost = "2 documents have the id of another one and are left out"
    nothing = "Nothing is left: all 2 documents were removed, 2 of them by the step 'duplicates'; removed.parquet says why"
    folder = plan.current("clean_corpus", "notes--b").url
    assert f"duplicate_documents: WARNING: all: {lost}" in terminal and f"clean_corpus: WARNING: notes--b: {lost}" in terminal
    assert nothing in terminal and f"id_field and text_field of its corpus, and deduplication ({folder})" in terminal
    assert "clean_corpus: WARNING: notes--a" not in terminal
    for asset, said in (("duplicate_documents", lost), ("clean_corpus", nothing)):
        (record,) = latest(light.instance, dg.AssetKey(asset), ["notes--b"] if asset == "clean_corpus" else None)
        assert record.asset_materialization is not None
        assert said in str(record.asset_materialization.metadata["warning"].value)
