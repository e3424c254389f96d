"""From an asset's partitions to stored artifacts and Dagster events: find what the store has, make the rest, report each.

Dagster gives every partition of one run the same data version; the events logged after the result put that right, so that exactly the
partitions downstream of a changed one become stale.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import dagster as dg

from instpt_assets.defs.plan import Plan
from instpt_assets.defs.previews import describe
from instpt_assets.defs.project import Project
from instpt_assets.errors import UserError, told
from instpt_assets.store.making import Build, Made, find_or_make
from instpt_assets.store.manifest import Spec
from instpt_assets.store.store import Artifact, CommitConflict

FAILED = "failed"
"""Metadata of an observation that says why a partition could not be made."""
RECENT = 20
"""Among so many of an asset's last materializations a run looks for its own."""
MAX_REASONS = 10
"""So many reasons stand in the description of a failure."""


def partition_keys(context: dg.AssetExecutionContext) -> list[str]:
    """The partitions that this run is about; `all` for an unpartitioned asset (also in a run over partitions)."""
    return ["all"] if context.assets_def.partitions_def is None else list(context.partition_keys)


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Errors whose message tells a person what to do (the store's, a missing input, a wrong value) fail the step with that message."""
    try:
        yield
    except (UserError, ValueError) as error:
        message = str(error)
        raise dg.Failure(message if message.startswith(what) else f"{what}: {message}", allow_retries=False) from error


class Outcome:
    """What becomes of the run's partitions of one asset. Each is logged as it ends, so that a killed run shows what it did."""

    def __init__(self, context: dg.AssetExecutionContext, asset: str) -> None:
        self.asset = asset
        self.keys = partition_keys(context)
        self.made: dict[str, Made] = {}
        self.errors: dict[str, Exception] = {}
        self._context = context
        self._key = dg.AssetKey(asset.split("/"))

    def committed(self, partition: str, made: Made) -> None:
        """The partition is in the store. Of several what was made is logged now, and once more, with the run's result, at the end."""
        self.made[partition] = made
        self._context.log.info("%s/%s: %s", self.asset, partition, "reused" if made.reused else "made")
        self._tell_rejected(partition, made)
        if len(self.keys) > 1 and not made.reused:
            log_partition(self._context, self._key, partition, made)

    def _tell_rejected(self, partition: str, made: Made) -> None:
        statistics = made.artifact.manifest.statistics
        read, rejected = statistics.get("num_read", 0), statistics.get("num_rejected", 0)
        if self.asset != "raw_corpus" or not rejected:
            return
        where = next(file.path for file in made.artifact.manifest.files if file.path.endswith("rejected.parquet"))
        told = f"{partition}: {read} records read, {rejected} rejected: {made.artifact.root}/{where} says why"
        if rejected < read:
            self._context.log.info(told)
        else:
            self._context.log.warning(f"{told}. Nothing is left: is text_field (and id_field) of its corpus the name of a field?")

    def failed(self, partition: str, error: Exception) -> None:
        """The partition cannot be made; the others go on. An observation says so in the UI and to `failures`."""
        self.errors[partition] = error
        expected = isinstance(error, dg.Failure)
        reason = _reason(error) if expected else f"{self.asset}/{partition}: {_reason(error)}"
        if not expected and len(self.keys) > 1:
            self.errors[partition] = dg.Failure(reason, allow_retries=False)
        self._context.log.error("failed: %s", reason, exc_info=None if expected else error)
        if partition != "all":
            self._context.log_event(dg.AssetObservation(self._key, partition=partition, metadata={FAILED: reason}))

    def report(self) -> Iterator[dg.MaterializeResult]:
        """Tell Dagster what was made: one result, then, for several partitions, one event each with its own data version.

        Raises:
            dg.Failure: partitions failed; the description is their reasons. What was made is logged, without a result: that would mark them too.
        """
        if not self.errors:
            yield from report(self._context, self.asset, {key: self.made[key] for key in self.keys})
            return
        for partition, made in self.made.items():
            if made.reused:
                log_partition(self._context, self._key, partition, made)
        raise failure(self.errors.values())


def failure(errors: Iterable[Exception]) -> Exception:
    """One exception for all: the only one as it is, of several a failure with their reasons, each once."""
    reasons = {_reason(error): error for error in errors}
    first = next(iter(reasons.values()))
    if len(reasons) == 1:
        return first
    more = f"\n… and {len(reasons) - MAX_REASONS} more, which the log names" if len(reasons) > MAX_REASONS else ""
    return dg.Failure("\n".join(list(reasons)[:MAX_REASONS]) + more, allow_retries=False)


def _reason(error: Exception) -> str:
    return error.description or "" if isinstance(error, dg.Failure) else told(error)


def materialize(
    context: dg.AssetExecutionContext, project: Project, asset: str, build: Build, *, plan: Plan | None = None, shared: bool = False
) -> Iterator[dg.MaterializeResult]:
    """Make the run's partitions of one asset in this process, and report them. One that fails does not stop the others.

    Args:
        build: writes an artifact's files into the given folder and returns its statistics.
        plan: what the artifacts are made from; by default what is current now.
        shared: runs over different partitions make this asset too; where another committed the same first, its artifact is taken.

    Raises:
        dg.Failure: an input is missing, damaged or contradicts the recipe, or another run committed first; the description says what to do.
    """
    plan = plan or project.plan()
    outcome = Outcome(context, asset)
    for key in outcome.keys:
        try:
            with explained(f"{asset}/{key}"):
                spec = plan.spec(asset, key)
                try:
                    made = find_or_make(project.store, spec, build)
                except CommitConflict:
                    first = project.store.find(spec) if shared else None
                    if first is None:
                        raise
                    made = Made(first, reused=True)
                project.store.point(project.recipe.name, made.artifact)
        except Exception as error:  # raised when the others are done
            outcome.failed(key, error)
        else:
            outcome.committed(key, made)
    yield from outcome.report()


def made_by_run(context: dg.AssetExecutionContext, project: Project, asset: str) -> Artifact | None:
    """The artifact of an unpartitioned asset that this run has materialized (or found), if it has."""
    records = latest(context.instance, dg.AssetKey(asset.split("/")), limit=RECENT)
    for record in records:
        event = record.asset_materialization
        if record.run_id == context.run_id and event is not None and "identity" in event.metadata:
            return project.store.get(asset, "all", str(event.metadata["identity"].value))
    return None


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
        records = latest(context.instance, dep.asset_key, [partition] if dep.partition_mapping is None else None)
        if not records:
            # An unpartitioned input has no event of this partition; another partition's says nothing of it.
            records = [record for record in latest(context.instance, dep.asset_key) if record.partition_key is None]
        materialization = records[0].asset_materialization if records else None
        version = (materialization.tags or {}).get("dagster/data_version") if materialization else None
        if version is not None:
            path = dep.asset_key.to_user_string()
            tags[f"dagster/input_data_version/{path}"] = version
            tags[f"dagster/input_event_pointer/{path}"] = str(records[0].storage_id)
    return tags


def latest(
    instance: dg.DagsterInstance, key: dg.AssetKey, partitions: Sequence[str] | None = None, limit: int = 1
) -> Sequence[dg.EventLogRecord]:
    """The asset's last materializations (of these partitions), the newest first."""
    return instance.fetch_materializations(dg.AssetRecordsFilter(asset_key=key, asset_partitions=partitions), limit=limit).records
