"""What one changed or new file makes stale: by Dagster's own status and by the store's identities."""

import dagster as dg
import pytest
from dagster._core.definitions.data_version import CachingStaleStatusResolver
from dagster._core.loader import LoadingContextForTest
from light_project import CORPUS, LightProject

from instpt_assets.defs.plan import Plan
from instpt_assets.defs.shards import range_tags, register
from instpt_assets.recipe.deduplication import Deduplication

SHARDS = ["notes--a", "notes--b", "notes--c"]
EVERY_SHARD = range_tags(SHARDS[0], SHARDS[-1])


@pytest.fixture(scope="module")
def light(tmp_path_factory: pytest.TempPathFactory) -> LightProject:
    """Every shard from raw documents to tokens, in two range runs around the tokenizer. Each test leaves all shards current."""
    project = LightProject(tmp_path_factory.mktemp("light"))
    assert project.run("shards", *CORPUS, tags=EVERY_SHARD).success
    assert project.run("synthesizer").success
    assert project.run("shards", "tokenized_raw", tags=EVERY_SHARD).success
    return project


def fresh(light: LightProject, asset: str) -> list[str]:
    """The shards of the asset that Dagster calls fresh; the others must be stale."""
    resolver = CachingStaleStatusResolver(light.instance, light.definitions.resolve_asset_graph(), LoadingContextForTest(light.instance))
    statuses = {key: resolver.get_status(dg.AssetKey(asset), key).value for key in SHARDS}
    assert set(statuses.values()) <= {"FRESH", "STALE"}, statuses
    return [key for key, status in statuses.items() if status == "FRESH"]


def versions(light: LightProject, asset: str) -> dict[str, str]:
    found = {}
    for key in SHARDS:
        (record,) = light.instance.fetch_materializations(
            dg.AssetRecordsFilter(asset_key=dg.AssetKey(asset), asset_partitions=[key]), limit=1
        ).records
        found[key] = record.asset_materialization.tags["dagster/data_version"]
    return found


def test_each_shard_of_a_range_run_has_its_own_version_and_metadata(light: LightProject) -> None:
    for asset in ("raw_corpus", "document_signatures", "clean_corpus", "tokenized_raw"):
        plan = light.project.plan()
        artifacts = {key: plan.current(asset, key).manifest for key in SHARDS}
        assert versions(light, asset) == {key: manifest.digest for key, manifest in artifacts.items()}
        assert len(set(versions(light, asset).values())) == 3
        for key, manifest in artifacts.items():
            (record,) = light.instance.fetch_materializations(
                dg.AssetRecordsFilter(asset_key=dg.AssetKey(asset), asset_partitions=[key]), limit=1
            ).records
            if asset in ("document_signatures", "clean_corpus"):
                assert (
                    record.asset_materialization.tags["dagster/input_data_version/raw_corpus"]
                    == plan.current("raw_corpus", key).manifest.digest
                )
            metadata = {name: value.value for name, value in record.asset_materialization.metadata.items()}
            assert metadata["identity"] == manifest.identity
            assert metadata["dagster/partition_row_count"] == manifest.statistics["num_rows"] > 0
            assert metadata["seconds"] >= 0 and metadata["preview"]
        assert fresh(light, asset) == SHARDS


def test_a_second_run_over_the_range_is_reused_and_leaves_everything_fresh(light: LightProject) -> None:
    before = versions(light, "clean_corpus")
    assert light.run("shards", tags=EVERY_SHARD).success
    assert versions(light, "clean_corpus") == before
    records = light.instance.fetch_materializations(dg.AssetKey("clean_corpus"), limit=3).records
    assert [record.asset_materialization.metadata["reused"].value for record in records] == [True] * 3
    assert fresh(light, "tokenized_raw") == SHARDS


def test_a_changed_file_makes_its_own_shard_stale(light: LightProject) -> None:
    light.write("b", note="An added sentence.")
    plan = light.project.plan()
    assert {key: plan.shard_is_current(key) for key in SHARDS} == {"notes--a": True, "notes--b": False, "notes--c": True}

    assert light.run("shards", "raw_corpus", tags=EVERY_SHARD).success
    assert fresh(light, "raw_corpus") == SHARDS
    assert fresh(light, "document_signatures") == ["notes--a", "notes--c"]
    plan = light.project.plan()
    assert [key for key in SHARDS if plan.is_current("document_signatures", key)] == ["notes--a", "notes--c"]
    assert [key for key in SHARDS if plan.is_current("clean_corpus", key)] == ["notes--a", "notes--c"]

    before = light.identities("tokenized_raw")
    assert light.run("shards", *CORPUS, tags=range_tags("notes--b", "notes--b")).success
    assert fresh(light, "clean_corpus") == SHARDS
    assert fresh(light, "tokenized_raw") == ["notes--a", "notes--c"]
    assert light.run("shards", "tokenized_raw", tags=EVERY_SHARD).success
    assert fresh(light, "tokenized_raw") == SHARDS
    after = light.identities("tokenized_raw")
    assert [key for key in SHARDS if before[key] != after[key]] == ["notes--b"]
    assert all(light.project.plan().shard_is_current(key) for key in SHARDS)


def test_a_new_shard_with_duplicates_leaves_the_old_shards_current(light: LightProject) -> None:
    before, tokenizer = light.identities("clean_corpus"), light.project.plan().current("tokenizer").manifest.identity
    light.write("d")
    (light.root / "notes" / "d.jsonl").write_bytes(
        (light.root / "notes" / "d.jsonl").read_bytes() + (light.root / "notes" / "a.jsonl").read_bytes()
    )
    assert register(light.project, light.instance) == [*SHARDS, "notes--d"]
    duplicates = light.project.plan().current("duplicate_documents").manifest.digest
    assert light.run("shards", tags=range_tags("notes--d", "notes--d")).success

    plan = light.project.plan()
    assert plan.current("duplicate_documents").manifest.digest != duplicates
    assert plan.current("clean_corpus", "notes--d").manifest.statistics["num_rows"] == 4  # of 8, four lie in notes--a already
    assert {key: light.identities("clean_corpus")[key] for key in SHARDS} == before
    assert plan.spec("tokenizer").identity == tokenizer
    assert all(plan.shard_is_current(key) for key in [*SHARDS, "notes--d"])


def test_other_rules_for_duplicates_make_shards_due_though_no_signature_changes(light: LightProject) -> None:
    plan = light.project.plan()
    assert plan.stale_shards(SHARDS) == []
    recipe = plan.recipe.model_copy(update={"deduplication": Deduplication(threshold=0.5)})
    other = Plan(recipe, light.project.store)
    assert other.is_current("document_signatures", "notes--a") and other.stale_shards(SHARDS) == SHARDS


def test_what_a_shard_that_is_gone_had_before_others_makes_them_due(light: LightProject) -> None:
    gone = light.root / "notes" / "a.jsonl"
    kept = gone.rename(light.root / "a.jsonl")
    try:
        plan = light.project.plan()
        assert plan.is_current("clean_corpus", "notes--d") and plan.stale_shards(["notes--b", "notes--d"]) == ["notes--b", "notes--d"]
        assert light.run("shards", tags=range_tags("notes--b", "notes--d")).success
        plan = light.project.plan()
        assert plan.stale_shards(["notes--b", "notes--d"]) == []
        assert plan.current("clean_corpus", "notes--d").manifest.statistics["num_rows"] == 8
    finally:
        kept.rename(gone)
