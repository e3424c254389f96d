"""Which shards an arm takes, waits for and says that it left out; what a run of several arms shows when some fail."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from light_project import CORPUS, WITH_PAIRS, LightProject, failure

from instpt_assets.defs import arms as arm_assets
from instpt_assets.defs import workers
from instpt_assets.defs.current_artifacts import NotMaterialized
from instpt_assets.defs.plan import Plan
from instpt_assets.defs.shards import range_tags, register
from instpt_assets.store.making import find_or_make
from instpt_assets.store.manifest import Spec
from instpt_assets.store.store import Store

CORPUS_ONLY = {"mixture": [{"component": "corpus"}]}
AUGMENTED = {"mixture": [{"component": "corpus", "pair_set": "synthesized"}]}
SEEDS = range_tags("seed-0", "seed-1")


def put(light: LightProject, asset: str, partition: str = "all") -> None:
    """An artifact of that asset, without any content of its kind."""

    def build(spec: Spec, inputs: object, out: Path) -> dict[str, Any]:
        (out / "empty").write_text(f"{asset} {partition}")
        return {}

    spec = Spec(asset=asset, partition=partition, code_version=0, recipe={}, inputs=())
    light.project.store.point("light", find_or_make(light.project.store, spec, build).artifact)


def test_an_arm_without_corpus_waits_for_no_shard(tmp_path: Path) -> None:
    light = LightProject(tmp_path, **WITH_PAIRS, arms={"tuning_only": {"mixture": [{"component": "tuning"}]}})
    put(light, "tokenized_instructions")
    spec = light.project.plan().spec("tuning_only/tokenized_mixture", "seed-0")
    assert [i.asset for i in spec.inputs] == ["tokenized_instructions"]


def test_a_shard_without_pairs_is_missing_for_the_arm_that_takes_them(tmp_path: Path) -> None:
    arms = {"raw": CORPUS_ONLY, "strict": AUGMENTED, "lenient": {**AUGMENTED, "allow_missing_shards": True}}
    light = LightProject(tmp_path, **WITH_PAIRS, arms=arms)
    for shard in ("notes--a", "notes--b", "notes--c"):
        put(light, "tokenized_raw", shard)
    with pytest.raises(NotMaterialized, match="lenient: no shard is tokenized yet"):
        light.project.plan().spec("lenient/tokenized_mixture", "seed-0")
    for shard in ("notes--a", "notes--c"):
        put(light, "synthesized/tokenized_augmented", shard)

    def taken(arm: str) -> set[str]:
        spec = light.project.plan().spec(f"{arm}/tokenized_mixture", "seed-0")
        assets = {i.asset for i in spec.inputs}
        return set.intersection(*({i.partition for i in spec.inputs if i.asset == asset} for asset in assets))

    assert taken("raw") == {"notes--a", "notes--b", "notes--c"}
    assert taken("lenient") == {"notes--a", "notes--c"}
    with pytest.raises(NotMaterialized, match=r"strict: 1 of 3 shards are not tokenized yet \(notes--b\): "):
        taken("strict")


def test_what_an_arm_leaves_out_is_in_its_mixtures_statistics(tmp_path: Path) -> None:
    light = LightProject(tmp_path, arms={"lenient": {**CORPUS_ONLY, "allow_missing_shards": True}})
    some = range_tags("notes--a", "notes--b")
    assert light.run("shards", *CORPUS, tags=some).success
    assert light.run("synthesizer").success
    assert light.run("shards", "tokenized_raw", tags=some).success
    assert light.run("seeds", "lenient/tokenized_mixture", tags=range_tags("seed-0", "seed-0")).success
    mixture = light.project.plan().current("lenient/tokenized_mixture", "seed-0").manifest
    assert mixture.statistics["missing_shards"] == ["notes--c"]
    assert {i.partition for i in mixture.inputs if i.asset == "tokenized_raw"} == {"notes--a", "notes--b"}


def test_finished_trainings_of_a_run_that_fails_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    light = LightProject(tmp_path, arms={"first": CORPUS_ONLY, "second": CORPUS_ONLY, "third": CORPUS_ONLY}, num_seeds=2)
    put(light, "tokenizer")
    for arm, seed in (("first", 0), ("first", 1), ("second", 0), ("second", 1), ("third", 0)):
        put(light, f"{arm}/tokenized_mixture", f"seed-{seed}")

    def worker(context: object, stage: str, task: workers.Task, on_message: Callable[[Mapping[str, Any]], None]) -> None:
        for job in task.jobs:
            if (job.asset, job.partition) != ("second/pretrained_checkpoint", "seed-0"):
                with Store(task.store).write(job) as draft:
                    (draft.folder / "weights").write_text(job.asset)
                on_message({"kind": "committed", "asset": job.asset, "partition": job.partition, "reused": False})
        raise dg.Failure("the pretrain worker failed: Diverged: the loss is not finite")

    monkeypatch.setattr(workers, "run", worker)
    message = failure(light.run("seeds", *(f"{arm}/pretrained_checkpoint" for arm in ("first", "second", "third")), tags=SEEDS))
    assert message.splitlines() == [
        "the pretrain worker failed: Diverged: the loss is not finite",
        "third/pretrained_checkpoint/seed-1: third/tokenized_mixture, partition seed-1, is not materialized: materialize it first",
    ]
    shown = {
        arm: light.instance.get_materialized_partitions(dg.AssetKey([arm, "pretrained_checkpoint"])) for arm in ("first", "second", "third")
    }
    assert shown == {"first": {"seed-0", "seed-1"}, "second": {"seed-1"}, "third": {"seed-0"}}
    for arm, seeds in shown.items():
        for seed in seeds:
            (record,) = light.instance.fetch_materializations(
                dg.AssetRecordsFilter(asset_key=dg.AssetKey([arm, "pretrained_checkpoint"]), asset_partitions=[seed]), limit=1
            ).records
            current = light.project.plan().current(f"{arm}/pretrained_checkpoint", seed).manifest
            assert record.asset_materialization.tags["dagster/data_version"] == current.digest


def test_runs_over_different_shards_share_the_duplicates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One run makes the very list that another is making; and a list without this run's shard becomes the current one behind its back."""
    light = LightProject(tmp_path, shards="a")
    one = range_tags("notes--a", "notes--a")
    assert light.run("shards", *CORPUS, tags=one).success
    without_b = light.project.plan().current("duplicate_documents")
    light.write("b")
    register(light.project, light.instance)
    from instpt_assets.defs import corpus

    find_duplicates, results = corpus.find_duplicates, []

    def overtaken(*arguments: Any, **options: Any) -> dict[str, Any]:
        if not results:
            monkeypatch.setattr(corpus, "find_duplicates", find_duplicates)
            results.append(light.run("shards", "duplicate_documents"))
        return find_duplicates(*arguments, **options)

    point = Store.point

    def behind_its_back(store: Store, recipe: str, artifact: Any) -> None:
        point(store, recipe, artifact)
        if artifact.manifest.asset == "duplicate_documents" and results:
            point(store, recipe, without_b)

    monkeypatch.setattr(corpus, "find_duplicates", overtaken)
    monkeypatch.setattr(Store, "point", behind_its_back)
    done = light.run("shards", *CORPUS, tags=range_tags("notes--b", "notes--b"))
    assert results[0].success
    assert done.success, failure(done)
    assert light.project.plan().current("duplicate_documents").manifest.identity == without_b.manifest.identity
    assert light.project.plan().current("clean_corpus", "notes--b").manifest.statistics["num_rows"] == 4


def test_an_arm_that_names_corpora_depends_on_their_shards_alone(tmp_path: Path) -> None:
    half = {"ratio": 0.5}
    news = {"component": "corpus", "corpora": ["news"]}
    arms = {
        "news_only": {"mixture": [news]},
        "both": {"mixture": [{**news, **half}, {"component": "augmented", "pair_set": "synthesized", "corpora": ["notes"], **half}]},
        "everything": CORPUS_ONLY,
    }
    files = {"source": str(tmp_path / "notes" / "*.jsonl"), "id_field": "id"}
    light = LightProject(tmp_path, "ab", **WITH_PAIRS, corpora={"notes": files, "news": files}, arms=arms)
    for shard in ("news--a", "news--b"):
        put(light, "tokenized_raw", shard)
    for shard in ("notes--a", "notes--b"):
        put(light, "synthesized/tokenized_augmented", shard)

    def made_from(arm: str) -> set[tuple[str, str]]:
        return {(i.asset, i.partition) for i in light.project.plan().spec(f"{arm}/tokenized_mixture", "seed-0").inputs}

    raw = {("tokenized_raw", "news--a"), ("tokenized_raw", "news--b")}
    assert made_from("news_only") == raw
    texts = {("synthesized/tokenized_augmented", "notes--a"), ("synthesized/tokenized_augmented", "notes--b")}
    assert made_from("both") == raw | texts
    with pytest.raises(NotMaterialized, match=r"everything: 2 of 4 shards are not tokenized yet \(notes--a, notes--b\)"):
        made_from("everything")
    put(light, "tokenized_raw", "notes--a")
    assert made_from("news_only") == raw
    deps = {key: {dep.asset_key.to_user_string() for dep in spec.deps} for key, spec in specs(light).items()}
    assert deps["news_only/tokenized_mixture"] == {"tokenized_raw"}
    assert deps["both/tokenized_mixture"] == {"tokenized_raw", "synthesized/tokenized_augmented"}


def specs(light: LightProject) -> dict[str, dg.AssetSpec]:
    return {spec.key.to_user_string(): spec for spec in light.definitions.resolve_all_asset_specs()}


def test_what_decides_a_mixture_is_hashed_where_it_is_set(tmp_path: Path) -> None:
    light = LightProject(tmp_path, "a")
    put(light, "tokenized_raw", "notes--a")
    plain = light.project.plan().spec("vanilla/tokenized_mixture", "seed-0").recipe
    assert set(plain) == {"mixture", "seed", "sequence_length", "token_budget", "batch_tokens"}
    later = {"packing": "best_fit", "document_attention": True, "held_out_documents": 2}
    pretraining = light.project.recipe.pretraining
    optimization = pretraining.optimization.model_copy(update={"extended_from": (1024,)})
    changed = pretraining.model_copy(update={**later, "optimization": optimization})
    recipe = light.project.recipe.model_copy(update={"pretraining": changed})
    assert Plan(recipe, light.project.store).spec("vanilla/tokenized_mixture", "seed-0").recipe == {
        **plain,
        **later,
        "extended_from": [1024],
    }


def test_a_mixtures_files_follow_no_order_of_registration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    light = LightProject(tmp_path, "ab")
    for shard in ("notes--a", "notes--b"):
        put(light, "tokenized_raw", shard)
    monkeypatch.setattr(arm_assets, "build_mixture", lambda *_, **__: {})
    spec = light.project.plan().spec("vanilla/tokenized_mixture", "seed-0")
    other_way = spec.model_copy(update={"inputs": spec.inputs[::-1]})
    assert other_way.identity == spec.identity
    for each, name in ((spec, "first"), (other_way, "second")):
        (tmp_path / name).mkdir()
        arm_assets._mix(light.project, each, {}, tmp_path / name)
    assert (tmp_path / "first/inputs.json").read_bytes() == (tmp_path / "second/inputs.json").read_bytes()
