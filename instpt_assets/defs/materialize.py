"""`make demo` and `make materialize`: run the jobs in graph order on the persistent instance, then print times, table and report.

The runs are ordinary Dagster runs, seen in `make ui` afterwards.
"""

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import dagster as dg

from instpt_assets.defs.dead_runs import end_dead_runs, this_process
from instpt_assets.defs.home import prepare_home
from instpt_assets.defs.jobs import REPORT_JOB, SEEDS_JOB, SHARDS_JOB, SYNTHESIZER_JOB
from instpt_assets.defs.partitions import SHARDS
from instpt_assets.defs.project import Project
from instpt_assets.defs.shards import contiguous, range_tags, register
from instpt_assets.recipe.loading import ConfigurationError

CORPUS = ("raw_corpus", "document_signatures", "duplicate_documents", "clean_corpus")


@dataclass(frozen=True)
class Step:
    """One job run: which assets of it, with which partition tags."""

    job: str
    assets: tuple[dg.AssetKey, ...]
    tags: dict[str, str]


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
    start = time.monotonic()
    ranges = contiguous(shards or registered, instance.get_dynamic_partitions(SHARDS.name or ""))
    for step in steps(project, definitions, chosen, ranges):
        if not execute(definitions, instance, step):
            return False
    print(f"\nAll done in {time.monotonic() - start:.0f} s. Store: {project.store.url}")
    report = project.store.current(project.recipe.name, "comparison_report", "all")
    if report is not None and any(key.path[-1] == "comparison_report" for key in chosen):
        print("\n" + report.file("table.txt").read_text(encoding="utf-8"))
        print(f"Report: {report.file('report.html')}")
    return True


def steps(project: Project, definitions: dg.Definitions, chosen: set[dg.AssetKey], ranges: Sequence[tuple[str, str]]) -> Iterator[Step]:
    """The job runs that materialize the chosen assets, in graph order: the corpus first, since the synthesizer learns from pinned shards."""

    def of(job: str, only: set[str] | None = None) -> tuple[dg.AssetKey, ...]:
        keys = definitions.resolve_job_def(job).asset_layer.selected_asset_keys
        return tuple(sorted(key for key in keys & chosen if only is None or key.to_user_string() in only))

    seeds = project.recipe.seeds
    everything = {key.to_user_string() for key in chosen}
    plan = [
        *((SHARDS_JOB, of(SHARDS_JOB, set(CORPUS)), range_tags(*r)) for r in ranges),
        (SYNTHESIZER_JOB, of(SYNTHESIZER_JOB), {}),
        *((SHARDS_JOB, of(SHARDS_JOB, everything - set(CORPUS)), range_tags(*r)) for r in ranges),
        (SEEDS_JOB, of(SEEDS_JOB), range_tags(seeds[0], seeds[-1])),
        (REPORT_JOB, of(REPORT_JOB), {}),
    ]
    return (Step(job, assets, tags) for job, assets, tags in plan if assets)


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


def _chosen(definitions: dg.Definitions, select: str) -> set[dg.AssetKey]:
    graph = definitions.resolve_asset_graph()
    chosen = dg.AssetSelection.from_string(select).resolve(graph) if select else graph.materializable_asset_keys
    if not chosen:
        raise ValueError(f"SELECT: '{select}' names no asset")
    return set(chosen)


if __name__ == "__main__":
    main()
