"""`make demo` and `make materialize`: run the jobs in graph order on the persistent instance, then print times, table and report.

The runs are ordinary Dagster runs, seen in `make ui` afterwards.
"""

import argparse
import signal
import sys
import time
import uuid
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import dagster as dg

from instpt_assets.defs.console import INTERRUPTED
from instpt_assets.defs.dead_runs import end_dead_runs, this_process, watched
from instpt_assets.defs.failures import failed_partitions
from instpt_assets.defs.home import prepare_home
from instpt_assets.defs.jobs import REPORT_JOB, SEEDS_JOB, SHARDS_JOB, SYNTHESIZER_JOB
from instpt_assets.defs.partitions import SHARDS
from instpt_assets.defs.plan import NotMaterialized
from instpt_assets.defs.project import Project
from instpt_assets.defs.shards import contiguous, range_tags, register
from instpt_assets.errors import UserError
from instpt_assets.recipe.recipe import Recipe

INTERRUPTIONS = ("KeyboardInterrupt", "DagsterExecutionInterruptedError")
CORPUS = ("raw_corpus", "document_signatures", "duplicate_documents", "clean_corpus")


@dataclass(frozen=True)
class Step:
    """One job's part: which assets of it, over which shards or with which partition tags."""

    job: str
    assets: tuple[dg.AssetKey, ...]
    tags: dict[str, str] = field(default_factory=dict)
    shards: tuple[str, ...] = ()

    def without(self, owners: Collection[str]) -> Self:
        """The step without the assets under these names."""
        return replace(self, assets=tuple(key for key in self.assets if key.path[0] not in owners))


def main(arguments: Sequence[str] | None = None) -> None:
    """Materialize the recipe, or the selected assets and shards of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--select", default="", help="a Dagster asset selection, e.g. 'key:\"synthesized/*\"' or 'group:corpus'; all assets by default"
    )
    parser.add_argument("--shards", default="", help="shard keys, separated by commas or spaces; all registered ones by default")
    options = parser.parse_args(arguments)
    try:
        project = Project.from_environment()
        prepare_home(project.recipe)
        with dg.DagsterInstance.get() as instance:
            end_dead_runs(instance)
            succeeded = materialize_recipe(project, instance, options.select, options.shards.replace(",", " ").split())
    except (UserError, ValueError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        print("interrupted: what was finished is kept, and the next run goes on from there", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    sys.exit(0 if succeeded else 1)


def materialize_recipe(project: Project, instance: dg.DagsterInstance, select: str, shards: Sequence[str]) -> bool:
    """Run every job in graph order and print what a person wants to see.

    A shard that fails is left out and the others go on; any other failure ends it.

    Shards without a selection mean all that can be made of these shards: the corpus of pinned ones comes along, since tokenizer and
    synthesizer learn from it, and arms that need others wait, which is said at the end and is no failure.

    Raises:
        ValueError: a shard is not registered, or the selection names nothing.
    """
    from instpt_assets.defs.build import build_definitions

    definitions = build_definitions(project)
    registered = register(project, instance)
    unknown = sorted(set(shards) - set(registered))
    if unknown:
        raise ValueError(f"SHARDS: not registered: {', '.join(unknown)} (registered: {', '.join(registered)})")
    chosen = _chosen(definitions, select)
    learned = _learned_from(project.recipe, chosen, registered)
    some_shards = bool(shards) and not select
    corpus_shards = [*shards, *learned] if some_shards else shards or registered
    start = time.monotonic()
    failed: set[str] = set()
    waiting: dict[str, str] = {}
    for step in steps(project, definitions, chosen, corpus_shards, shards or registered):
        if step.job == SEEDS_JOB and (some_shards or failed):
            waiting = incomplete_arms(project, failed)
        step = step.without([*waiting, *(["comparison_report"] if waiting else [])])
        if step.assets and not (
            execute_shards(definitions, instance, step, failed) if step.shards else execute(definitions, instance, step)
        ):
            return False
    if failed:
        print(f"\nFailed, for the reasons above: {', '.join(sorted(failed))}. The other shards are done. Store: {project.store.url}")
        print("".join(f"  {reason}\n" for reason in waiting.values()), end="")
        return False
    print(f"\n{'These shards are' if waiting else 'All'} done in {time.monotonic() - start:.0f} s. Store: {project.store.url}")
    if waiting:
        print(f"\nNot made, for want of other shards than SHARDS names: {', '.join([*waiting, 'comparison_report'])}")
        print("".join(f"  {reason}\n" for reason in waiting.values()) + "Without SHARDS, all shards and these are materialized.")
        return True
    report = project.store.current(project.recipe.name, "comparison_report", "all")
    if report is not None and any(key.path[-1] == "comparison_report" for key in chosen):
        print("\n" + report.file("table.txt").read_text(encoding="utf-8"))
        print(f"Report: {report.file('report.html')}")
    return True


def steps(
    project: Project,
    definitions: dg.Definitions,
    chosen: set[dg.AssetKey],
    corpus_shards: Sequence[str],
    shards: Sequence[str],
) -> Iterator[Step]:
    """The steps that materialize the chosen assets, in graph order: the corpus first, since the synthesizer learns from pinned shards."""

    def of(job: str, only: set[str] | None = None) -> tuple[dg.AssetKey, ...]:
        keys = definitions.resolve_job_def(job).asset_layer.selected_asset_keys
        return tuple(sorted(key for key in keys & chosen if only is None or key.to_user_string() in only))

    seeds = project.recipe.seeds
    everything = {key.to_user_string() for key in chosen}
    plan = [
        Step(SHARDS_JOB, of(SHARDS_JOB, set(CORPUS)), shards=tuple(corpus_shards)),
        Step(SYNTHESIZER_JOB, of(SYNTHESIZER_JOB)),
        Step(SHARDS_JOB, of(SHARDS_JOB, everything - set(CORPUS)), shards=tuple(shards)),
        Step(SEEDS_JOB, of(SEEDS_JOB), range_tags(seeds[0], seeds[-1])),
        Step(REPORT_JOB, of(REPORT_JOB)),
    ]
    return (step for step in plan if step.assets)


def incomplete_arms(project: Project, failed: Collection[str] = ()) -> dict[str, str]:
    """Arms that lack something of a shard, or would take an earlier state of one that failed, with the reason."""
    plan = project.plan()
    found = {}
    for arm, part in project.recipe.arms.items():
        lost = [key for key in plan.wanted_shards(arm) if key in failed]
        if lost and not part.allow_missing_shards:
            found[arm] = f"{arm}: waits for {', '.join(lost)}"
            continue
        try:
            plan.spec(f"{arm}/tokenized_mixture", project.recipe.seeds[0])
        except NotMaterialized as error:
            found[arm] = str(error)
    return found


def execute_shards(definitions: dg.Definitions, instance: dg.DagsterInstance, step: Step, failed: set[str]) -> bool:
    """Run a step over its shards but the failed ones. Those that fail now join them, and the others of their range are run again.

    Returns:
        False if something else than a shard failed.
    """
    order = instance.get_dynamic_partitions(SHARDS.name or "")
    ranges = deque(contiguous(set(step.shards) - failed, order))
    while ranges:
        first, last = ranges.popleft()
        known = set(failed)
        if execute(definitions, instance, replace(step, tags=range_tags(first, last)), failed):
            continue
        if failed == known:
            return False
        rest = set(order[order.index(first) : order.index(last) + 1]) - failed
        ranges.extendleft(reversed(contiguous(rest, order)))
    return True


def execute(definitions: dg.Definitions, instance: dg.DagsterInstance, step: Step, failed: set[str] | None = None) -> bool:
    """Run one job here and print the time of each of its stages; on failure, the reason. Partitions that failed join `failed`.

    Raises:
        KeyboardInterrupt: the run was interrupted.
    """
    print(f"\n== {step.job} " + "=" * (60 - len(step.job)), flush=True)
    run_id = str(uuid.uuid4())
    with watched(instance, run_id):
        result = definitions.resolve_job_def(step.job).execute_in_process(
            instance=instance,
            asset_selection=list(step.assets),
            run_config={"loggers": {"console": {"config": {}}}},
            run_id=run_id,
            tags={**step.tags, **this_process()},
            raise_on_error=False,
        )
    for event in result.all_events:
        if event.event_type == dg.DagsterEventType.STEP_SUCCESS and event.step_key is not None:
            print(f"{event.step_key.replace('__', '/'):45} {event.step_success_data.duration_ms / 1000:8.1f} s")
        elif event.event_type == dg.DagsterEventType.STEP_FAILURE and event.step_key is not None:
            failure = event.step_failure_data
            if failure.error is not None and failure.error.cls_name in INTERRUPTIONS:
                raise KeyboardInterrupt
            reason = failure.user_failure_data.description if failure.user_failure_data else failure.error_display_string
            print(f"\n{event.step_key.replace('__', '/')} failed: {reason}", file=sys.stderr)
        elif event.event_type == dg.DagsterEventType.RUN_FAILURE and INTERRUPTED in (event.message or ""):
            raise KeyboardInterrupt  # while it waited for its place in the pool
    if failed is not None:
        failed |= failed_partitions(instance, result.run_id)
    return bool(result.success)


def _learned_from(recipe: Recipe, chosen: set[dg.AssetKey], registered: Sequence[str]) -> set[str]:
    """The shards that the recipe pins for tokenizer and synthesizer.

    Raises:
        ValueError: one that a chosen asset needs, by these pins or by an arm's shards, is not registered.
    """
    fields = [("tokenizer", "tokenizer.pinned_shards", recipe.tokenizer.pinned_shards)]
    if recipe.synthesizer is not None:
        fields.append(("instruction_synthesizer", "synthesizer.pinned_shards", recipe.synthesizer.pinned_shards))
    learned = {shard for _, _, shards in fields for shard in shards}
    for name, arm in recipe.arms.items():
        if arm.shards is not None and not arm.allow_missing_shards:
            fields.append((f"{name}/tokenized_mixture", f"arms.{name}.shards", arm.shards))
    names = {key.to_user_string() for key in chosen}
    for asset, name, shards in fields:
        unknown = sorted(set(shards) - set(registered))
        if asset in names and unknown:
            raise ValueError(f"{name}: not registered: {', '.join(unknown)} (registered: {', '.join(registered)})")
    return learned


def _chosen(definitions: dg.Definitions, select: str) -> set[dg.AssetKey]:
    graph = definitions.resolve_asset_graph()
    try:
        chosen = dg.AssetSelection.from_string(select).resolve(graph) if select else graph.materializable_asset_keys
    except dg.DagsterError as error:
        raise ValueError(f"SELECT: '{select}' is no asset selection (such are 'group:corpus' and 'key:\"synthesized/*\"')") from error
    if not chosen:
        raise ValueError(f"SELECT: '{select}' names no asset")
    return set(chosen)


if __name__ == "__main__":
    main()
