"""Automation, off until switched on: a nightly schedule that synthesizes what is missing or stale, a sensor that registers new shards."""

import dagster as dg

from instpt_assets.corpus.shards import is_settled
from instpt_assets.defs.dead_runs import end_dead_runs
from instpt_assets.defs.failures import failing_shards
from instpt_assets.defs.jobs import SHARDS_JOB
from instpt_assets.defs.partitions import SHARDS
from instpt_assets.defs.project import Project
from instpt_assets.defs.shards import claim, contiguous, covering, range_tags, register


def nightly_synthesis(project: Project) -> dg.ScheduleDefinition:
    """One run, at 02:00, over the range that covers all missing or stale shards; the current ones in between cost nothing.

    Shards that failed the last time get runs of their own, so that they hold up no other.
    """

    @dg.schedule(name="nightly_synthesis", job_name=SHARDS_JOB, cron_schedule="0 2 * * *")
    def schedule(context: dg.ScheduleEvaluationContext) -> list[dg.RunRequest] | dg.SkipReason:
        """Missing or stale by the store's identities, not by Dagster's events."""
        end_dead_runs(context.instance)  # or the night's run waits for their places in the pool
        plan = project.plan()
        register(project, context.instance)  # a file that is gone must not stand in the night's range
        shards = context.instance.get_dynamic_partitions(SHARDS.name or "")  # in the instance's order: its ranges follow it
        due = [key for key in shards if not plan.shard_is_current(key)]
        if not due:
            return dg.SkipReason(f"all {len(shards)} registered shards are up to date")
        failing = failing_shards(plan, context.instance)
        ranges = [*covering(due, shards, without=failing), *contiguous(failing.intersection(due), shards)]
        return [
            dg.RunRequest(run_key=first, tags={**range_tags(first, last), "instpt/shards_due": str(len(due))}) for first, last in ranges
        ]

    return schedule


def new_shards(project: Project) -> dg.SensorDefinition:
    """Registers files that appeared behind the corpora's sources."""

    @dg.sensor(name="new_shards", minimum_interval_seconds=60)
    def sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        """A shard is registered when its file is there and grows no more; nothing is materialized by this."""
        claim(project, context.instance)
        plan = project.plan()
        registered = set(plan.registered_shards)
        arrived = [key for key in plan.available_shards() if key in registered or is_settled(plan.shard(key))]
        project.store.register_shards(project.recipe.name, arrived)
        known = set(context.instance.get_dynamic_partitions(SHARDS.name or ""))
        new = [key for key in project.store.registered_shards(project.recipe.name) if key not in known]
        if not new:
            return dg.SkipReason(f"no shard beside the {len(known)} registered ones")
        return dg.SensorResult(dynamic_partitions_requests=[SHARDS.build_add_request(new)])

    return sensor
