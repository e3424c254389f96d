"""Shards that fail: they are left out of a run's range, so that one unreadable file stops no other."""

import dagster as dg

from instpt_assets.defs.materialization import FAILED, latest
from instpt_assets.defs.plan import Plan

MOST = 1000
"""So many of an asset's last observations are looked at."""


def failing_shards(plan: Plan, instance: dg.DagsterInstance) -> set[str]:
    """Shards for which a stage has failed and not succeeded since."""
    failing: set[str] = set()
    for asset in plan.shard_assets:
        key = dg.AssetKey(asset.split("/"))
        failures: dict[str, int] = {}
        for record in instance.fetch_observations(key, limit=MOST).records:
            observation = record.asset_observation
            if observation is not None and observation.partition is not None and FAILED in observation.metadata:
                failures.setdefault(observation.partition, record.storage_id)
        for shard, failed in failures.items():
            succeeded = latest(instance, key, [shard])
            if not succeeded or succeeded[0].storage_id < failed:
                failing.add(shard)
    return failing


def failed_partitions(instance: dg.DagsterInstance, run_id: str) -> set[str]:
    """Partitions that a run could not make."""
    events = (entry.dagster_event for entry in instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_OBSERVATION))
    observed = (event.asset_observation_data.asset_observation for event in events if event is not None)
    return {item.partition for item in observed if item.partition is not None and FAILED in item.metadata}
