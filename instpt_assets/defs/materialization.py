"""From an asset's partitions to stored artifacts and Dagster events: find what the store has, make the rest, report each.

For a result over several partitions Dagster would log one event each, when all are done, with the same data version, and for those that
were not made too. They are logged here instead, each as it is committed with its own version, so that exactly the partitions downstream
of a changed one become stale.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import dagster as dg

from instpt_assets.defs.budgets import STOPPED, stopped_assets
from instpt_assets.defs.dagster_private import WITHOUT_EVENTS, announce
from instpt_assets.defs.partitions import SHARDS
from instpt_assets.defs.plan import Plan
from instpt_assets.defs.previews import describe
from instpt_assets.defs.project import Project
from instpt_assets.defs.shards import SHARDS_TAG, listed_shards
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
MAX_OBSERVED = 100
"""Of so many unfinished partitions an event says how far they are, of all together another."""


def _listed(context: dg.AssetExecutionContext) -> list[str]:
    """The shards that a tag of the run names; none where there is no such tag, or the asset is not one of shards."""
    if context.assets_def.partitions_def != SHARDS:
        return []
    with explained(SHARDS_TAG):
        return listed_shards(context.run.tags, context.instance.get_dynamic_partitions(SHARDS.name or "")) or []


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

    def __init__(self, context: dg.AssetExecutionContext, asset: str, plan: Plan) -> None:
        self.asset = asset
        self._context = context
        self._key = dg.AssetKey(asset.split("/"))
        partitioned = context.assets_def.partitions_def is not None  # a run over partitions makes unpartitioned assets too
        known, listed = list(context.partition_keys) if partitioned else ["all"], _listed(context)
        announce(context, self._key, [key for key in listed if key not in known])
        self._alone = len(known) == 1 and not listed
        self._waiting = self._behind_stopped(plan, listed or known)
        self.keys = [key for key in listed or known if key not in self._waiting]
        """What is to be made: the run's partitions without those that wait for an input which the run, at its limit, left unfinished."""
        self.made: dict[str, Made] = {}
        self.errors: dict[str, Exception] = {}
        self.unfinished: set[str] = set()
        """What the run left at its limit."""

    def _behind_stopped(self, plan: Plan, keys: Sequence[str]) -> set[str]:
        stopped = stopped_assets(self._context.instance, self._context.run_id)
        inputs = [dep.asset_key.to_user_string() for dep in self._context.assets_def.specs_by_key[self._key].deps]
        unfinished = [asset for asset in inputs if asset in stopped]
        return {key for key in keys if key != "all" and not all(plan.is_current(asset, key) for asset in unfinished)}

    def committed(self, partition: str, made: Made) -> None:
        """The partition is in the store. One of several is logged now; a single one is Dagster's own result."""
        self.made[partition] = made
        self._context.log.info("%s/%s: %s", self.asset, partition, "reused" if made.reused else "made")
        self._tell_rejected(partition, made)
        if warning := made.artifact.manifest.statistics.get("warning"):
            self._context.log.warning(f"{partition}: {warning} ({made.artifact.url})")
        if not self._alone:
            log_partition(self._context, self._key, partition, made)

    def stopped(self, reason: str, partitions: Mapping[str, Mapping[str, int | None]]) -> None:
        """The run is at its limit. Observations say in the UI how far the unfinished partitions are, those that were begun first.

        Args:
            partitions: `chains_done` and `chains_left` of each (None: it was not looked at).
        """
        left = {key: chains for key, chains in partitions.items() if key not in self.made}
        begun_first = sorted(left, key=lambda key: not left[key]["chains_done"])
        begun = [key for key in begun_first if left[key]["chains_done"]]
        message = f"{reason}: {len(self.made)} partitions done, {len(begun)} begun, {len(left) - len(begun)} not begun; the next run goes on from there"
        self._context.log.warning("%s stopped at %s", self.asset, message)
        counts = {"partitions_done": len(self.made), "partitions_begun": len(begun), "partitions_left": len(left)}
        self._context.log_event(dg.AssetObservation(self._key, metadata={STOPPED: message, **counts}))
        for key in begun_first[:MAX_OBSERVED]:
            done, missing = left[key]["chains_done"] or 0, left[key]["chains_left"]
            far = "it is not begun" if missing is None or not done else f"{done} of {done + missing} chains are kept"
            metadata: dict[str, Any] = {STOPPED: f"{reason}: {far}; the next run goes on from there", "chains_done": done}
            known = {} if missing is None else {"chains_left": missing}
            self._context.log_event(dg.AssetObservation(self._key, partition=key, metadata={**metadata, **known}))
        self.unfinished = set(left)

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
        if not expected and not self._alone:
            self.errors[partition] = dg.Failure(reason, allow_retries=False)
        self._context.log.error("failed: %s", reason, exc_info=None if expected else error)
        if partition != "all":
            self._context.log_event(dg.AssetObservation(self._key, partition=partition, metadata={FAILED: reason}))

    def report(self) -> Iterator[dg.MaterializeResult]:
        """Tell Dagster that the step is done.

        Raises:
            dg.Failure: partitions failed; the description is their reasons. What was made is logged.
        """
        if self._waiting:
            self._context.log.warning("%s: %d partitions wait for unfinished inputs", self.asset, len(self._waiting))
            message = f"{len(self._waiting)} partitions wait for inputs that the run left unfinished at its limit"
            self._context.log_event(dg.AssetObservation(self._key, metadata={STOPPED: message, "partitions_left": len(self._waiting)}))
        if self.errors:
            raise failure(self.errors.values())
        if self._alone and self.made:
            (only,) = self.made.values()
            version = dg.DataVersion(only.artifact.manifest.digest)
            yield dg.MaterializeResult(asset_key=self._key, metadata=_metadata(only), data_version=version)
        else:
            yield dg.MaterializeResult(asset_key=self._key, metadata=WITHOUT_EVENTS)


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
    outcome = Outcome(context, asset, plan)
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
