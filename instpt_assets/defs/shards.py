"""Shards as Dagster knows them: registered in the store (which keeps their order), then as dynamic partitions of the instance."""

from collections.abc import Collection, Mapping, Sequence

import dagster as dg

from instpt_assets.defs.dagster_private import ASSET_PARTITION_RANGE_END_TAG, ASSET_PARTITION_RANGE_START_TAG
from instpt_assets.defs.partitions import SHARDS
from instpt_assets.defs.project import Project
from instpt_assets.recipe.loading import ConfigurationError
from instpt_assets.store.registration import register_shards

RECIPE_KEY = "instpt/recipe"
"""Under it the instance keeps the name of the recipe that it serves."""
SHARDS_TAG = "instpt/shards"
"""Tag of a run over shards that are no contiguous range: `notes--a, notes--c ... notes--f`."""


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
    register_shards(project.store, project.recipe.name, plan.available_shards())
    keys = plan.registered_shards
    known = instance.get_dynamic_partitions(SHARDS.name)
    for gone in set(known) - set(keys):
        instance.delete_dynamic_partition(SHARDS.name, gone)
    new = [key for key in keys if key not in set(known)]
    if new:
        instance.add_dynamic_partitions(SHARDS.name, new)
    return keys


def range_tags(first: str, last: str) -> dict[str, str]:
    """Tags of one run over a contiguous range of partitions, in the instance's order (the store's, unless the instance served another before)."""
    return {ASSET_PARTITION_RANGE_START_TAG: first, ASSET_PARTITION_RANGE_END_TAG: last}


def run_tags(keys: Collection[str], order: Sequence[str]) -> dict[str, str]:
    """Tags of one run over exactly these shards, at least one.

    Dagster knows runs over one contiguous range only. Of any other choice it is told the first shard; a tag of ours names all (one range
    around them would let it show those between as failed when another one fails).
    """
    ranges = contiguous(keys, order)
    (first, last), more = ranges[0], len(ranges) > 1
    listed = ", ".join(first if first == last else f"{first} ... {last}" for first, last in ranges)
    return {**range_tags(first, first if more else last), **({SHARDS_TAG: listed} if more else {})}


def listed_shards(tags: Mapping[str, str], order: Sequence[str]) -> list[str] | None:
    """The shards that a run's own tag names, in that order; None without the tag, where Dagster's range is all there is.

    Raises:
        ConfigurationError: a shard that it names is not registered.
    """
    listed = tags.get(SHARDS_TAG)
    if listed is None:
        return None
    places = {key: place for place, key in enumerate(order)}
    chosen: set[str] = set()
    for part in listed.split(","):
        first, _, last = part.strip().partition(" ... ")
        unknown = [key for key in (first, last or first) if key not in places]
        if unknown:
            raise ConfigurationError(f"tag {SHARDS_TAG}: no shard {unknown[0]} is registered (write 'first ... last' for a range)")
        chosen.update(order[places[first] : places[last or first] + 1])
    return [key for key in order if key in chosen]


def contiguous(keys: Collection[str], order: Sequence[str]) -> list[tuple[str, str]]:
    """The fewest ranges of `order` that hold exactly `keys`, as (first, last)."""
    wanted = set(keys)
    ranges: list[tuple[str, str]] = []
    open_range = False
    for key in order:
        if key in wanted:
            ranges.append((ranges.pop()[0], key) if open_range else (key, key))
        open_range = key in wanted
    return ranges
