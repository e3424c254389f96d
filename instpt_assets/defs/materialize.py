"""`make demo` and `make materialize`: run the jobs in graph order on the persistent instance, then print times, table and report.

The runs are ordinary Dagster runs, seen in `make ui` afterwards.
"""

import argparse
import signal
import sys
import time
import uuid
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import dagster as dg

from instpt_assets.defs.budgets import Budget, stopped_assets
from instpt_assets.defs.console import INTERRUPTED
from instpt_assets.defs.current_artifacts import NotMaterialized
from instpt_assets.defs.dead_runs import end_dead_runs, this_process, watched
from instpt_assets.defs.failures import failed_partitions
from instpt_assets.defs.home import prepare_home
from instpt_assets.defs.jobs import REPORT_JOB, SEEDS_JOB, SHARDS_JOB, SYNTHESIZER_JOB
from instpt_assets.defs.partitions import SHARDS
from instpt_assets.defs.project import Project
from instpt_assets.defs.shards import range_tags, register, run_tags
from instpt_assets.errors import UserError
from instpt_assets.recipe.recipe import Recipe
from instpt_assets.recipe.writers import ModelFreeWriter

INTERRUPTIONS = ("KeyboardInterrupt", "DagsterExecutionInterruptedError")
MAX_NAMED = 20
"""So many shards are named in a line."""
CORPUS = ("raw_corpus", "document_signatures", "duplicate_documents", "evaluation_examples", "clean_corpus")


@dataclass(frozen=True)
class Step:
    """One job's part: which assets of it, over which shards or with which partition tags, with which run configuration of its ops."""

    job: str
    assets: tuple[dg.AssetKey, ...]
    tags: dict[str, str] = field(default_factory=dict)
    shards: tuple[str, ...] = ()
    config: dict[str, Any] = field(default_factory=dict)

    def without(self, owners: Collection[str]) -> Self:
        """The step without the assets under these names."""
        return replace(self, assets=tuple(key for key in self.assets if key.path[0] not in owners))


@dataclass
class Left:
    """What the runs so far have left."""

    failed: set[str] = field(default_factory=set)
    """Shards that failed."""
    stopped: set[str] = field(default_factory=set)
    """Assets that stand unfinished at a run's limit."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Materialize the recipe, or the selected assets and shards of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--select", default="", help="a Dagster asset selection, e.g. 'key:\"synthesized/*\"' or 'group:corpus'; all assets by default"
    )
    parser.add_argument("--shards", default="", help="shard keys, separated by commas or spaces; all registered ones by default")
    parser.add_argument("--tokens", help="tokens after which a run that writes pairs stops; by default as the execution profile says")
    parser.add_argument("--minutes", help="minutes after which it stops; by default as the execution profile says")
    options = parser.parse_args(arguments)
    try:
        project = Project.from_environment()
        prepare_home(project.recipe)
        with dg.DagsterInstance.get() as instance:
            end_dead_runs(instance)
            shards = options.shards.replace(",", " ").split()
            succeeded = materialize_recipe(project, instance, options.select, shards, budget(options.tokens, options.minutes))
    except (UserError, ValueError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        print("interrupted: what was finished is kept, and the next run goes on from there", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    sys.exit(0 if succeeded else 1)


def budget(tokens: str | None, minutes: str | None) -> Budget:
    """The limits of each run that writes pairs, as given on the command line.

    Raises:
        ValueError: one is no positive number.
    """
    values: dict[str, Any] = {}
    for name, setting, text, number in (("TOKENS", "max_generated_tokens", tokens, int), ("MINUTES", "max_minutes", minutes, float)):
        try:
            values |= {} if text is None else {setting: number(text.replace(",", "").replace("_", ""))}
            Budget(**values)
        except ValueError as error:
            raise ValueError(f"{name}: '{text}' is no positive {'whole ' if number is int else ''}number") from error
    return Budget(**values)


def materialize_recipe(
    project: Project, instance: dg.DagsterInstance, select: str, shards: Sequence[str], limits: Budget | None = None
) -> bool:
    """Run every job in graph order and print what a person wants to see.

    A shard that fails is left out and the others go on; any other failure ends it. Where a run stops at its limit, arms that need the
    unfinished pairs wait, which is said at the end and is no failure.

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
    left = Left()
    waiting: dict[str, str] = {}
    for step in steps(project, definitions, chosen, corpus_shards, shards or registered, limits):
        if step.job == SEEDS_JOB and (some_shards or left.failed or left.stopped):
            waiting = incomplete_arms(project, left)
        step = step.without([*waiting, *(["comparison_report"] if waiting else [])])
        if step.assets and not (execute_shards(definitions, instance, step, left) if step.shards else execute(definitions, instance, step)):
            return False
    failed = left.failed
    if failed:
        others = " The other shards are done." if set(shards or registered) - failed else ""
        print(f"\nFailed, for the reasons above: {', '.join(sorted(failed))}.{others} Store: {project.store.url}")
        print("".join(f"  {reason}\n" for reason in waiting.values()), end="")
        return False
    if left.stopped:
        print(
            f"\nStopped after {time.monotonic() - start:.0f} s, as said above; the next run goes on from there. Store: {project.store.url}"
        )
        print("".join(f"  {reason}\n" for reason in waiting.values()), end="")
        return True
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
    limits: Budget | None = None,
) -> Iterator[Step]:
    """The steps that materialize the chosen assets, in graph order: the corpus first, since the synthesizer learns from pinned shards."""

    def of(job: str, only: set[str] | None = None) -> tuple[dg.AssetKey, ...]:
        keys = definitions.resolve_job_def(job).asset_layer.selected_asset_keys
        return tuple(sorted(key for key in keys & chosen if only is None or key.to_user_string() in only))

    writing = [
        dg.AssetKey([name, "instruction_pairs"])
        for name, part in project.recipe.pair_sets.items()
        if not isinstance(part.writer, ModelFreeWriter)
    ]
    config = {key.to_python_identifier(): {"config": limits.model_dump(exclude_none=True)} for key in writing if limits and key in chosen}
    seeds = project.recipe.seeds
    everything = {key.to_user_string() for key in chosen}
    plan = [
        Step(SHARDS_JOB, of(SHARDS_JOB, set(CORPUS)), shards=tuple(corpus_shards)),
        Step(SYNTHESIZER_JOB, of(SYNTHESIZER_JOB)),
        Step(SHARDS_JOB, of(SHARDS_JOB, everything - set(CORPUS)), shards=tuple(shards), config=config),
        Step(SEEDS_JOB, of(SEEDS_JOB), range_tags(seeds[0], seeds[-1])),
        Step(REPORT_JOB, of(REPORT_JOB)),
    ]
    return (step for step in plan if step.assets)


def incomplete_arms(project: Project, left: Left) -> dict[str, str]:
    """Arms that lack something of a shard, or would take an earlier state of one that failed or was not finished, with the reason."""
    plan = project.plan()
    found = {}
    for arm, part in project.recipe.arms.items():
        stopped = {f"{pair_set}/instruction_pairs" for pair_set in part.pair_sets} & left.stopped
        wanted = plan.wanted_shards(arm)
        lost = [key for key in wanted if key in left.failed or any(not plan.is_current(pairs, key) for pairs in stopped)]
        if lost and not part.allow_missing_shards:
            found[arm] = f"{arm}: waits for {', '.join(lost[:MAX_NAMED])}{f' and {len(lost) - MAX_NAMED} more' if lost[MAX_NAMED:] else ''}"
            continue
        try:
            plan.spec(f"{arm}/tokenized_mixture", project.recipe.seeds[0])
        except NotMaterialized as error:
            found[arm] = str(error)
    return found


def execute_shards(definitions: dg.Definitions, instance: dg.DagsterInstance, step: Step, left: Left) -> bool:
    """Run a step over its shards but the failed ones. Those that fail now join them, and the step is run again over the others.

    Returns:
        False if something else than a shard failed.
    """
    order = instance.get_dynamic_partitions(SHARDS.name or "")
    while shards := set(step.shards) - left.failed:
        known = set(left.failed)
        if execute(definitions, instance, replace(step, tags=run_tags(shards, order)), left):
            return True
        if left.failed == known:
            return False
    return True


def execute(definitions: dg.Definitions, instance: dg.DagsterInstance, step: Step, left: Left | None = None) -> bool:
    """Run one job here and print the time of each of its stages; on failure, the reason. What it could not make or finish joins `left`.

    Raises:
        KeyboardInterrupt: the run was interrupted.
    """
    print(f"\n== {step.job} " + "=" * (60 - len(step.job)), flush=True)
    run_id = str(uuid.uuid4())
    with watched(instance, run_id):
        result = definitions.resolve_job_def(step.job).execute_in_process(
            instance=instance,
            asset_selection=list(step.assets),
            run_config={"loggers": {"console": {"config": {}}}, "ops": step.config},
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
    if left is not None:
        left.failed |= failed_partitions(instance, result.run_id)
        left.stopped |= stopped_assets(instance, result.run_id)
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
