"""What every asset says of itself in the UI: key, group, code version, owners, kinds, pool."""

from typing import Any

from instpt_assets.defs.plan import CODE_VERSIONS

OWNERS = ["team:data"]
GPU_POOL = "gpu"
"""Concurrency pool of everything that runs a model."""


def attributes(asset: str, group: str, *, kinds: set[str], owners: list[str] = OWNERS) -> dict[str, Any]:
    """Arguments of `dg.asset` or `dg.AssetSpec` for the asset of that key (as a path)."""
    return {
        "key": asset.split("/"),
        "group_name": group,
        "code_version": str(CODE_VERSIONS[asset.rsplit("/", 1)[-1]]),
        "owners": owners,
        "kinds": kinds,
    }


MODELS = ["team:models"]
"""Owners of what trains, runs or scores models."""
