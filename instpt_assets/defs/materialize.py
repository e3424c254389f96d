"""`make demo` and `make materialize`: run the jobs in graph order on the persistent instance, then print times, table and report.

The runs are ordinary Dagster runs, seen in `make ui` afterwards.
"""

import argparse
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Self

import dagster as dg

from instpt_assets.defs.dead_runs import end_dead_runs, this_process
from instpt_assets.defs.home import prepare_home
from instpt_assets.defs.jobs import REPORT_JOB, SEEDS_JOB, SHARDS_JOB, SYNTHESIZER_JOB
from instpt_assets.defs.partitions import SHARDS
from instpt_assets.defs.plan import NotMaterialized
from instpt_assets.defs.project import Project
from instpt_assets.defs.shards import contiguous, range_tags, register
from instpt_assets.recipe.loading import ConfigurationError
from instpt_assets.recipe.recipe import Recipe

CORPUS = ("raw_corpus", "document_signatures", "duplicate_documents", "clean_corpus")


@dataclass(frozen=True)
class Step:
    """One job run: which assets of it, with which partition tags."""

    job: str
    assets: tuple[dg.AssetKey, ...]
    tags: dict[str, str]

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
    except (ConfigurationError, ValueError) as error:
        sys.exit(f"error: {error}")
    sys.exit(0 if succeeded else 1)


def materialize_recipe(project: Project, instance: dg.DagsterInstance, select: str, shards: Sequence[str]) -> bool:
    """Run every job in graph order; stops at the first that fails. Prints what a person wants to see.

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
    order = instance.get_dynamic_partitions(SHARDS.name or "")
    ranges = contiguous(shards or registered, order)
    corpus_ranges = contiguous([*shards, *learned], order) if some_shards else ranges
    start = time.monotonic()
    waiting: dict[str, str] = {}
    for step in steps(project, definitions, chosen, corpus_ranges, ranges):
        if some_shards and step.job == SEEDS_JOB:
            waiting = incomplete_arms(project)
        step = step.without([*waiting, *(["comparison_report"] if waiting else [])])
        if step.assets and not execute(definitions, instance, step):
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
    corpus_ranges: Sequence[tuple[str, str]],
    ranges: Sequence[tuple[str, str]],
) -> Iterator[Step]:
    """The job runs that materialize the chosen assets, in graph order: the corpus first, since the synthesizer learns from pinned shards."""

    def of(job: str, only: set[str] | None = None) -> tuple[dg.AssetKey, ...]:
        keys = definitions.resolve_job_def(job).asset_layer.selected_asset_keys
        return tuple(sorted(key for key in keys & chosen if only is None or key.to_user_string() in only))

    seeds = project.recipe.seeds
    everything = {key.to_user_string() for key in chosen}
    plan = [
        *((SHARDS_JOB, of(SHARDS_JOB, set(CORPUS)), range_tags(*r)) for r in corpus_ranges),
        (SYNTHESIZER_JOB, of(SYNTHESIZER_JOB), {}),
        *((SHARDS_JOB, of(SHARDS_JOB, everything - set(CORPUS)), range_tags(*r)) for r in ranges),
        (SEEDS_JOB, of(SEEDS_JOB), range_tags(seeds[0], seeds[-1])),
        (REPORT_JOB, of(REPORT_JOB), {}),
    ]
    return (Step(job, assets, tags) for job, assets, tags in plan if assets)


def incomplete_arms(project: Project) -> dict[str, str]:
    """Arms that lack something of a shard, with the reason."""
    plan = project.plan()
    found = {}
    for arm in project.recipe.arms:
        try:
            plan.spec(f"{arm}/tokenized_mixture", project.recipe.seeds[0])
        except NotMaterialized as error:
            found[arm] = str(error)
    return found


def execute(definitions: dg.Definitions, instance: dg.DagsterInstance, step: Step) -> bool:
    """Run one job here and print the time of each of its stages; on failure, the reason."""
    print(f"\n== {step.job} " + "=" * (60 - len(step.job)), flush=True)
    result = definitions.resolve_job_def(step.job).execute_in_process(
        instance=instance,
        asset_selection=list(step.assets),
        run_config={"loggers": {"console": {"config": {}}}},
        tags={**step.tags, **this_process()},
        raise_on_error=False,
    )
    for event in result.all_events:
        if event.event_type == dg.DagsterEventType.STEP_SUCCESS and event.step_key is not None:
            print(f"{event.step_key.replace('__', '/'):45} {event.step_success_data.duration_ms / 1000:8.1f} s")
        elif event.event_type == dg.DagsterEventType.STEP_FAILURE and event.step_key is not None:
            failure = event.step_failure_data
            reason = failure.user_failure_data.description if failure.user_failure_data else failure.error_display_string
            print(f"\n{event.step_key.replace('__', '/')} failed: {reason}", file=sys.stderr)
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
    for asset, field, shards in fields:
        unknown = sorted(set(shards) - set(registered))
        if asset in names and unknown:
            raise ValueError(f"{field}: not registered: {', '.join(unknown)} (registered: {', '.join(registered)})")
    return learned


def _chosen(definitions: dg.Definitions, select: str) -> set[dg.AssetKey]:
    graph = definitions.resolve_asset_graph()
    chosen = dg.AssetSelection.from_string(select).resolve(graph) if select else graph.materializable_asset_keys
    if not chosen:
        raise ValueError(f"SELECT: '{select}' names no asset")
    return set(chosen)


if __name__ == "__main__":
    main()
