"""Automation, off until switched on: a nightly schedule that synthesizes what is missing or stale, a sensor that registers new shards."""

import dagster as dg

from instpt_assets.corpus.shards import list_shards
from instpt_assets.defs.dead_runs import end_dead_runs
from instpt_assets.defs.failures import failing_shards
from instpt_assets.defs.jobs import SHARDS_JOB
from instpt_assets.defs.partitions import SHARDS
from instpt_assets.defs.plan import Plan
from instpt_assets.defs.project import Project
from instpt_assets.defs.shards import claim, register, run_tags
from instpt_assets.store.registration import register_shards, registered_shards


def nightly_synthesis(project: Project) -> dg.ScheduleDefinition:
    """At 02:00 one run over all shards of which something is missing or stale.

    Two kinds get runs of their own: shards that failed the last time, so that they hold up no other, and shards whose pairs are written,
    so that what is made of them waits for no backlog of generation.
    """

    @dg.schedule(name="nightly_synthesis", job_name=SHARDS_JOB, cron_schedule="0 2 * * *")
    def schedule(context: dg.ScheduleEvaluationContext) -> list[dg.RunRequest] | dg.SkipReason:
        """Missing or stale by the store's identities, not by Dagster's events."""
        end_dead_runs(context.instance)  # or the night's run waits for their places in the pool
        plan = project.plan()
        register(project, context.instance)  # a file that is gone must not stand among the night's shards
        shards = context.instance.get_dynamic_partitions(SHARDS.name or "")  # in the instance's order: its ranges follow it
        due = plan.stale_shards(shards)
        if not due:
            return dg.SkipReason(f"all {len(shards)} registered shards are up to date")
        failing = failing_shards(plan, context.instance, due)
        written = {key for key in due if key not in failing and _pairs_are_written(plan, key)}
        missing = [key for key in due if key not in failing and key not in written]
        runs = {"missing": missing, "written": written, "failing": failing}
        return [
            dg.RunRequest(run_key=name, tags={**run_tags(keys, shards), "instpt/shards_due": str(len(keys))})
            for name, keys in runs.items()
            if keys
        ]

    return schedule


def _pairs_are_written(plan: Plan, shard: str) -> bool:
    """Whether all pair sets have the shard's pairs, of its text as it is now: the rest takes little time."""
    pairs = [asset for asset in plan.shard_assets if asset.endswith("/instruction_pairs")]
    corpus = ("raw_corpus", "document_signatures", "clean_corpus")
    return bool(pairs) and all(plan.is_current(asset, shard) for asset in (*corpus, *pairs))


def new_shards(project: Project) -> dg.SensorDefinition:
    """Registers files that appeared behind the corpora's sources."""

    @dg.sensor(name="new_shards", minimum_interval_seconds=60)
    def sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        """A shard is registered when its file is there and grows no more; nothing is materialized by this."""
        claim(project, context.instance)
        recipe = project.recipe
        arrived = [shard.key for name, corpus in recipe.corpora.items() for shard in list_shards(name, corpus, settled=True)]
        register_shards(project.store, recipe.name, arrived)
        known = set(context.instance.get_dynamic_partitions(SHARDS.name or ""))
        wanted = set(arrived) - known
        new = [key for key in registered_shards(project.store, recipe.name) if key in wanted]
        if not new:
            return dg.SkipReason(f"no shard beside the {len(known)} registered ones")
        return dg.SensorResult(dynamic_partitions_requests=[SHARDS.build_add_request(new)])

    return sensor
