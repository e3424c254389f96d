"""From an asset's partitions to stored artifacts and Dagster events: find what the store has, make the rest, report each.

Dagster gives every partition of one run the same data version; the events logged after the result put that right, so that exactly the
partitions downstream of a changed one become stale.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import dagster as dg

from instpt_assets.defs.plan import NotMaterialized, Plan
from instpt_assets.defs.previews import describe
from instpt_assets.defs.project import Project
from instpt_assets.store.making import Build, Made, find_or_make
from instpt_assets.store.manifest import Spec
from instpt_assets.store.store import StoreError


def partition_keys(context: dg.AssetExecutionContext) -> list[str]:
    """The partitions that this run is about; `all` for an unpartitioned asset (also in a run over partitions)."""
    return ["all"] if context.assets_def.partitions_def is None else list(context.partition_keys)


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Errors whose message tells a person what to do (the store's, a missing input, a wrong value) fail the step with that message."""
    try:
        yield
    except (StoreError, NotMaterialized, ValueError) as error:
        message = str(error)
        raise dg.Failure(message if message.startswith(what) else f"{what}: {message}", allow_retries=False) from error


def materialize(context: dg.AssetExecutionContext, project: Project, asset: str, build: Build) -> Iterator[dg.MaterializeResult]:
    """Make the run's partitions of one asset in this process, and report them.

    Args:
        build: writes an artifact's files into the given folder and returns its statistics.

    Raises:
        dg.Failure: an input is missing, damaged or contradicts the recipe, or another run committed first; the description says what to do.
    """
    plan = project.plan()
    made: dict[str, Made] = {}
    try:
        for key in partition_keys(context):
            with explained(f"{asset}/{key}"):
                made[key] = find_or_make(project.store, plan.spec(asset, key), build)
            project.store.point(project.recipe.name, made[key].artifact)
            context.log.info("%s/%s: %s", asset, key, "reused" if made[key].reused else "made")
    except Exception:
        # A failed run shows what it did.
        for key, item in made.items():
            log_partition(context, dg.AssetKey(asset.split("/")), key, item)
        raise
    yield from report(context, asset, made)


def expected_spec(plan: Plan, asset: str, partition: str) -> Spec:
    """What the artifact would be made from now.

    Raises:
        dg.Failure: an input is missing; the description says which.
    """
    with explained(f"{asset}/{partition}"):
        return plan.spec(asset, partition)


def report(context: dg.AssetExecutionContext, asset: str, made: Mapping[str, Made]) -> Iterator[dg.MaterializeResult]:
    """Tell Dagster what was made: one result, then, for several partitions, one event each with its own data version."""
    key = dg.AssetKey(asset.split("/"))
    if len(made) == 1:
        (only,) = made.values()
        yield dg.MaterializeResult(asset_key=key, metadata=_metadata(only), data_version=dg.DataVersion(only.artifact.manifest.digest))
        return
    yield dg.MaterializeResult(asset_key=key)
    for partition, item in made.items():
        log_partition(context, key, partition, item)


def log_partition(context: dg.AssetExecutionContext, key: dg.AssetKey, partition: str, made: Made) -> None:
    """Log one partition's materialization with its own metadata, data version and input versions."""
    tags = {
        **_provenance(context, key, partition),
        "dagster/data_version": made.artifact.manifest.digest,
        "dagster/data_version_is_user_provided": "true",
        "dagster/code_version": str(made.artifact.manifest.code_version),
    }
    context.log_event(dg.AssetMaterialization(asset_key=key, partition=partition, metadata=_metadata(made), tags=tags))


def _metadata(made: Made) -> dict[str, Any]:
    manifest = made.artifact.manifest
    with explained(f"{manifest.asset}/{manifest.partition}"):  # a preview reads stored files
        return describe(made.artifact, made.reused)


def _provenance(context: dg.AssetExecutionContext, key: dg.AssetKey, partition: str) -> dict[str, str]:
    """Tags that say which versions of its inputs the partition was made from, as Dagster reads them."""
    tags = {}
    for dep in context.assets_def.specs_by_key[key].deps:
        # An unpartitioned input has no event of this partition.
        records = (_latest(context.instance, dep.asset_key, [partition]) if dep.partition_mapping is None else []) or _latest(
            context.instance, dep.asset_key
        )
        materialization = records[0].asset_materialization if records else None
        version = (materialization.tags or {}).get("dagster/data_version") if materialization else None
        if version is not None:
            path = dep.asset_key.to_user_string()
            tags[f"dagster/input_data_version/{path}"] = version
            tags[f"dagster/input_event_pointer/{path}"] = str(records[0].storage_id)
    return tags


def _latest(instance: dg.DagsterInstance, key: dg.AssetKey, partitions: Sequence[str] | None = None) -> Sequence[dg.EventLogRecord]:
    return instance.fetch_materializations(dg.AssetRecordsFilter(asset_key=key, asset_partitions=partitions), limit=1).records
