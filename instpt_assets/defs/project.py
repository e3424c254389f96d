"""What the definitions are built from: one recipe, one execution profile, one store."""

import os
from dataclasses import dataclass
from functools import cached_property
from typing import Self

from instpt_assets.defs.plan import Plan
from instpt_assets.recipe.execution import Execution
from instpt_assets.recipe.loading import load_execution, load_recipe
from instpt_assets.recipe.recipe import Recipe
from instpt_assets.store.store import Store


@dataclass(frozen=True)
class Project:
    """The recipe, execution profile and store that `INSTPT_RECIPE`, `INSTPT_EXECUTION` and `INSTPT_STORE` name."""

    recipe: Recipe
    execution: Execution
    store_url: str

    @classmethod
    def from_environment(cls) -> Self:
        """The project that the environment names.

        Raises:
            ConfigurationError: a recipe or execution profile is not valid; the message names the fields.
        """
        return cls(load_recipe(), load_execution(), os.environ.get("INSTPT_STORE") or ".instpt/store")

    @cached_property
    def store(self) -> Store:
        """The store; opened when first used, so that loading definitions asks no server."""
        return Store(self.store_url)

    def plan(self) -> Plan:
        """A fresh look at what every asset would be made from now."""
        return Plan(self.recipe, self.store)
