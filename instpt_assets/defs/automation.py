"""Automation, off until switched on: a nightly schedule that synthesizes what is missing or stale, a sensor that registers new shards."""

import dagster as dg

from instpt_assets.defs.dead_runs import end_dead_runs
from instpt_assets.defs.jobs import SHARDS_JOB
from instpt_assets.defs.partitions import SHARDS
from instpt_assets.defs.project import Project
from instpt_assets.defs.shards import range_tags, register


def nightly_synthesis(project: Project) -> dg.ScheduleDefinition:
    """One run, at 02:00, over the range that covers all missing or stale shards; the current ones in between cost nothing."""

    @dg.schedule(name="nightly_synthesis", job_name=SHARDS_JOB, cron_schedule="0 2 * * *")
    def schedule(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        """Missing or stale by the store's identities, not by Dagster's events."""
        end_dead_runs(context.instance)  # or the night's run waits for their places in the pool
        plan = project.plan()
        register(project, context.instance)  # a file that is gone must not stand in the night's range
        shards = context.instance.get_dynamic_partitions(SHARDS.name or "")  # in the instance's order: its ranges follow it
        due = [key for key in shards if not plan.shard_is_current(key)]
        if not due:
            return dg.SkipReason(f"all {len(shards)} registered shards are up to date")
        return dg.RunRequest(tags={**range_tags(due[0], due[-1]), "instpt/shards_due": str(len(due))})

    return schedule


def new_shards(project: Project) -> dg.SensorDefinition:
    """Registers files that appeared behind the corpora's sources."""

    @dg.sensor(name="new_shards", minimum_interval_seconds=60)
    def sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        """A shard is registered when its file is there; nothing is materialized by this."""
        project.store.register_shards(project.recipe.name, project.plan().available_shards())
        known = set(context.instance.get_dynamic_partitions(SHARDS.name or ""))
        new = [key for key in project.store.registered_shards(project.recipe.name) if key not in known]
        if not new:
            return dg.SkipReason(f"no shard beside the {len(known)} registered ones")
        return dg.SensorResult(dynamic_partitions_requests=[SHARDS.build_add_request(new)])

    return sensor
