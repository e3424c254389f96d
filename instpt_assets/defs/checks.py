"""Checks of assets of shards, and those of every `<pair set>/instruction_pairs`: integrity blocks what follows, quality warns beyond the recipe's thresholds.

They are a step of their own behind the asset, so a reused artifact is checked as a new one is, and they can be run alone. Each shard has
its own evaluations: Dagster gives a run over several partitions one result a check, so they are logged here, each for its partition.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import dagster as dg

from instpt_assets.defs.dagster_private import AssetCheckEvaluationTargetMaterializationData
from instpt_assets.defs.materialization import FAILED, explained, failure, latest
from instpt_assets.defs.partitions import SHARDS
from instpt_assets.defs.project import Project
from instpt_assets.defs.shards import listed_shards
from instpt_assets.recipe.synthesis import PairChecks
from instpt_assets.store.store import Artifact

INTEGRITY, QUALITY = "integrity", "quality"
_MEASURED = {
    "no_valid_pair": ("max_no_valid_pair", "of the synthesized passages have no valid pair"),
    "pairs_per_passage": ("min_pairs_per_passage", "valid pairs a synthesized passage"),
    "duplicate_instructions": ("max_duplicate_instructions", "of the pairs repeat an instruction of the shard"),
    "degenerate": ("max_degenerate", "of the pairs repeat themselves"),
    "unsupported": ("max_unsupported", "of the judged responses are not supported by their passage"),
}
"""Measure of the artifact's statistics: its threshold's field, and what it is a number of."""


class Verdict(NamedTuple):
    """What one check found."""

    passed: bool
    description: str
    metadata: Mapping[str, Any]


def pair_checks(project: Project, pair_set: str) -> dg.AssetChecksDefinition:
    """The checks of one pair set's `instruction_pairs`."""
    asset = f"{pair_set}/instruction_pairs"
    key = dg.AssetKey(asset.split("/"))
    thresholds = project.recipe.pair_sets[pair_set].checks
    # Few, with several figures each: every evaluation costs the instance's database three transactions a shard.
    specs = [
        dg.AssetCheckSpec(
            INTEGRITY,
            asset=key,
            description="Files, columns, one row and a known status a passage, counts as in the manifest. What is broken goes no further.",
            blocking=True,
            partitions_def=SHARDS,
        ),
        dg.AssetCheckSpec(QUALITY, asset=key, description=_thresholds(thresholds), partitions_def=SHARDS),
    ]

    return shard_checks(project, asset, specs, lambda name, artifact: _judge(name, artifact, pair_set, thresholds))


def shard_checks(
    project: Project, asset: str, specs: Sequence[dg.AssetCheckSpec], judge: Callable[[str, Artifact | None], Verdict]
) -> dg.AssetChecksDefinition:
    """Checks of an asset of shards, each evaluated shard by shard. A blocking one that fails fails the shard.

    Args:
        asset: its key as a path.
        specs: the checks, all of this asset.
        judge: tells what the check of that name finds of a shard's artifact (None: it is not in the store any more).
    """
    key = dg.AssetKey(asset.split("/"))

    @dg.multi_asset_check(name=f"{key.to_python_identifier()}__checks", specs=specs, can_subset=True)
    def checks(context: dg.AssetCheckExecutionContext) -> Iterator[dg.Output[None]]:
        chosen = [spec for spec in specs if spec.key in context.selected_asset_check_keys]
        broken = []
        for shard in _shards(context):
            for record in latest(context.instance, key, [shard]):
                with explained(f"{asset}/{shard}"):
                    artifact = _artifact(project, asset, shard, record)
                    verdicts = [(spec, judge(spec.name, artifact)) for spec in chosen]
                for spec, verdict in verdicts:
                    evaluation = _evaluation(spec, verdict, shard, record)
                    context.op_execution_context.log_event(evaluation)  # type: ignore[arg-type]  # its annotation forgets this kind
                    if spec.blocking and not verdict.passed:
                        broken.append(dg.Failure(verdict.description, allow_retries=False))
                        failed = dg.AssetObservation(key, partition=shard, metadata={FAILED: verdict.description})
                        context.op_execution_context.log_event(failed)
        if broken:
            raise failure(broken)
        for spec in chosen:  # without these, what waits for the checks would be told that there was none
            yield dg.Output(None, output_name=spec.get_python_identifier())

    return checks


def _thresholds(thresholds: PairChecks) -> str:
    bounds = [
        f"{name} {'at least' if _is_least(field) else 'at most'} {getattr(thresholds, field):g}" for name, (field, _) in _MEASURED.items()
    ]
    return f"Warns where the engine failed on passages, or a measure is beyond the recipe's threshold: {', '.join(bounds)}."


def _is_least(field: str) -> bool:
    return field.startswith("min_")


def _shards(context: dg.AssetCheckExecutionContext) -> list[str]:
    """The shards that the run is about; of those not materialized there is nothing to check."""
    order = context.instance.get_dynamic_partitions(SHARDS.name or "")
    return listed_shards(context.run.tags, order) or list(context.op_execution_context.partition_keys)


def _artifact(project: Project, asset: str, shard: str, record: dg.EventLogRecord) -> Artifact | None:
    """What the materialization put into the store; None if it is not there any more."""
    event = record.asset_materialization
    identity = event.metadata.get("identity") if event is not None else None
    return project.store.get(asset, shard, str(identity.value)) if identity is not None else None


def _judge(name: str, artifact: Artifact | None, pair_set: str, thresholds: PairChecks) -> Verdict:
    if artifact is None:
        return Verdict(name != INTEGRITY, "its artifact is not in the store: materialize the shard again", {})
    return _integrity(artifact) if name == INTEGRITY else _quality(artifact, pair_set, thresholds)


def _quality(artifact: Artifact, pair_set: str, thresholds: PairChecks) -> Verdict:
    statistics = artifact.manifest.statistics
    num_failed = statistics["status"]["engine_error"]
    values = {name: value for name in _MEASURED if (value := statistics.get("measures", {}).get(name)) is not None}
    told = []
    for name, value in values.items():
        field, noun = _MEASURED[name]
        threshold = getattr(thresholds, field)
        if value < threshold if _is_least(field) else value > threshold:
            shown, bound = (f"{value:.2f}", f"{threshold:g}") if _is_least(field) else (f"{value:.1%}", f"{threshold:.1%}")
            told.append(f"{shown} {noun} ({field} is {bound})")
    advice = []
    if told:
        advice.append(
            f"Read some of its pairs (the preview): if they are as they should be, set these fields in pair_sets.{pair_set}.checks."
        )
    if num_failed:
        reasons = "; ".join(f"{reason} ({count} times)" for reason, count in statistics.get("engine_errors", {}).items())
        why = f": {reasons}" if reasons else ""
        told.append(f"the engine failed on {num_failed:,} of {statistics['num_passages']:,} passages, which stay without pairs{why}")
        advice.append(f"To try those passages again, delete {artifact.url} and materialize the shard.")
    description = ". ".join(["; ".join(told), *advice]) if told else "within the recipe's thresholds"
    return Verdict(not told, f"{artifact.manifest.partition}: {description}", {**values, "engine_errors": num_failed})


def _integrity(artifact: Artifact) -> Verdict:
    from instpt_assets.synthesis.integrity import violations

    manifest = artifact.manifest
    found = violations(artifact)
    told = f"{manifest.partition}: {manifest.statistics['num_passages']:,} passages, each with a status"
    if found:
        told = (
            f"{manifest.asset}/{manifest.partition} is damaged: {'; '.join(found)}. Nothing is made from it: "
            f"delete {artifact.url} and materialize the shard again."
        )
    return Verdict(not found, told, {"violations": len(found), "num_passages": manifest.statistics["num_passages"]})


def _evaluation(spec: dg.AssetCheckSpec, verdict: Verdict, shard: str, record: dg.EventLogRecord) -> dg.AssetCheckEvaluation:
    return dg.AssetCheckEvaluation(
        asset_key=spec.asset_key,
        check_name=spec.name,
        passed=verdict.passed,
        description=verdict.description,
        metadata=verdict.metadata,
        severity=dg.AssetCheckSeverity.ERROR if spec.blocking else dg.AssetCheckSeverity.WARN,
        blocking=spec.blocking,
        partition=shard,
        target_materialization_data=AssetCheckEvaluationTargetMaterializationData(
            storage_id=record.storage_id, run_id=record.run_id, timestamp=record.timestamp
        ),
    )
