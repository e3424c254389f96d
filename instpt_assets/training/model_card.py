"""The model card (`README.md`) of a checkpoint: what it is, what it was made from and by which recipe, how its training went, how to load it."""

from typing import Any

from instpt_assets.recipe.base import Part


class Card(Part):
    """What a card tells that the training itself does not know."""

    name: str
    """The training's name: `vanilla, seed-0`."""
    asset: str
    """The checkpoint's asset key as a path."""
    partition: str
    """Its partition key, or `all`."""
    identity: str
    """Its identity in the store."""
    recipe: dict[str, Any]
    """The part of the recipe that it follows."""
