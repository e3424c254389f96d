"""Partitions: shards are dynamic (registered as their data appears), seeds are fixed by the recipe."""

from collections.abc import Iterable, Sequence

import dagster as dg

from instpt_assets.recipe.recipe import Recipe

SHARDS = dg.DynamicPartitionsDefinition(name="shards")
SINGLE_RUN = dg.BackfillPolicy.single_run()
"""Many partitions in one run: one worker start serves them all."""


def seed_partitions(recipe: Recipe) -> dg.StaticPartitionsDefinition:
    """The repeats of every arm: seed-0, seed-1, …."""
    return dg.StaticPartitionsDefinition(list(recipe.seeds))


def same(*keys: str) -> list[dg.AssetDep]:
    """Dependencies on the same partition (or on an unpartitioned asset)."""
    return [dg.AssetDep(key.split("/")) for key in keys]


def every(*keys: str) -> list[dg.AssetDep]:
    """Dependencies on all partitions."""
    return [dg.AssetDep(key.split("/"), partition_mapping=dg.AllPartitionMapping()) for key in keys]


def pinned(key: str, partitions: Iterable[str]) -> list[dg.AssetDep]:
    """A dependency on the partitions that the recipe pins; none where it pins none."""
    chosen: Sequence[str] = list(partitions)
    return [dg.AssetDep(key.split("/"), partition_mapping=dg.SpecificPartitionsPartitionMapping(chosen))] if chosen else []
