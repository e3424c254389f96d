"""What the definitions are built from: one recipe, one execution profile, one store."""

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

from instpt_assets.defs.plan import Plan
from instpt_assets.recipe.execution import Execution
from instpt_assets.recipe.loading import load_execution, load_recipe
from instpt_assets.recipe.recipe import Recipe
from instpt_assets.store.registration import registered_shards
from instpt_assets.store.store import Artifact, Store, StoreError


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
        """The store; opened when first used, so that loading definitions asks no server.

        Raises:
            StoreError: it cannot be reached.
        """
        try:
            store = Store(self.store_url)
            registered_shards(store, self.recipe.name)
            if store.is_local:
                Path(store.root).mkdir(parents=True, exist_ok=True)
        except Exception as error:  # each remote client has exceptions of its own
            raise StoreError(f"INSTPT_STORE: the store {self.store_url} cannot be reached: {error}") from error
        return store

    def plan(self, *, duplicates: Artifact | None = None) -> Plan:
        """A fresh look at what every asset would be made from now (with these `duplicate_documents`)."""
        return Plan(self.recipe, self.store, duplicates=duplicates)
