"""Shards as Dagster knows them: registered in the store (which keeps their order), then as dynamic partitions of the instance."""

from collections.abc import Collection, Sequence

import dagster as dg

from instpt_assets.defs.dagster_private import ASSET_PARTITION_RANGE_END_TAG, ASSET_PARTITION_RANGE_START_TAG
from instpt_assets.defs.partitions import SHARDS
from instpt_assets.defs.project import Project
from instpt_assets.recipe.loading import ConfigurationError

RECIPE_KEY = "instpt/recipe"
"""Under it the instance keeps the name of the recipe that it serves."""


def claim(project: Project, instance: dg.DagsterInstance) -> None:
    """Make the instance the recipe's, or see that it is: another's partitions would be taken for shards that are gone.

    Raises:
        ConfigurationError: it serves another recipe.
    """
    kept = instance.daemon_cursor_storage.get_cursor_values({RECIPE_KEY})
    owner = kept.get(RECIPE_KEY)
    if owner is None:
        instance.daemon_cursor_storage.set_cursor_values({RECIPE_KEY: project.recipe.name})
    elif owner != project.recipe.name:
        raise ConfigurationError(
            f"DAGSTER_HOME: the instance in {instance.root_directory} serves the recipe '{owner}', not "
            f"'{project.recipe.name}': unset DAGSTER_HOME (each recipe then has one of its own) or name another folder"
        )


def register(project: Project, instance: dg.DagsterInstance) -> list[str]:
    """Register what lies behind the corpora's sources, and forget partitions whose file or corpus is gone (the store keeps their artifacts).

    Returns:
        The recipe's shards in the order of their registration. Idempotent.

    Raises:
        ConfigurationError: the instance serves another recipe.
    """
    claim(project, instance)
    assert SHARDS.name is not None
    plan = project.plan()
    project.store.register_shards(project.recipe.name, plan.available_shards())
    keys = plan.registered_shards
    known = instance.get_dynamic_partitions(SHARDS.name)
    for gone in set(known) - set(keys):
        instance.delete_dynamic_partition(SHARDS.name, gone)
    new = [key for key in keys if key not in set(known)]
    if new:
        instance.add_dynamic_partitions(SHARDS.name, new)
    return keys


def range_tags(first: str, last: str) -> dict[str, str]:
    """Tags of one run over a contiguous range of shards, in the instance's order (the store's, unless the instance served another before)."""
    return {ASSET_PARTITION_RANGE_START_TAG: first, ASSET_PARTITION_RANGE_END_TAG: last}


def contiguous(keys: Collection[str], order: Sequence[str]) -> list[tuple[str, str]]:
    """The fewest ranges of `order` that hold exactly `keys`, as (first, last)."""
    return covering(keys, order, without=set(order) - set(keys))


def covering(keys: Collection[str], order: Sequence[str], *, without: Collection[str]) -> list[tuple[str, str]]:
    """The fewest ranges of `order` that hold all `keys` and none of `without`, as (first, last); others in between come along."""
    wanted, barred = set(keys) - set(without), set(without)
    ranges: list[tuple[str, str]] = []
    open_range = False
    for key in order:
        if key in barred:
            open_range = False
        elif key in wanted:
            if open_range:
                ranges[-1] = (ranges[-1][0], key)
            else:
                ranges.append((key, key))
            open_range = True
    return ranges
