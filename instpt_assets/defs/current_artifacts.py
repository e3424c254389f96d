"""What the store holds for the recipe right now: its current artifacts, and its shards."""

from collections.abc import Iterable
from functools import cache, cached_property, lru_cache

from instpt_assets.corpus.shards import Shard, list_shards
from instpt_assets.errors import UserError
from instpt_assets.recipe.recipe import Recipe
from instpt_assets.store.manifest import Input
from instpt_assets.store.registration import registered_shards
from instpt_assets.store.store import Artifact, Store

_KEPT_ARTIFACTS = 4096
"""So many manifests of shards and seeds are kept: each is small, but a store may have very many."""


class NotMaterialized(UserError):
    """An input does not exist yet; the message says what to materialize first."""


class CurrentArtifacts:
    """The recipe's current artifacts in the store. It is one look: what it has read it does not read again."""

    def __init__(self, recipe: Recipe, store: Store) -> None:
        self.recipe = recipe
        self.store = store
        # What all shards share is read once, not once a shard; what several stages of a shard need, once a shard.
        self._unpartitioned = cache(lambda asset: store.current(recipe.name, asset, "all"))
        self._partitioned = lru_cache(_KEPT_ARTIFACTS)(lambda asset, partition: store.current(recipe.name, asset, partition))
        self._shards_of = cache(lambda name: {shard.key: shard for shard in list_shards(name, recipe.corpora[name])})

    def current(self, asset: str, partition: str = "all") -> Artifact:
        """The recipe's current artifact.

        Raises:
            NotMaterialized: there is none.
        """
        artifact = self._find(asset, partition)
        if artifact is None:
            where = "" if partition == "all" else f", partition {partition},"
            raise NotMaterialized(f"{asset}{where} is not materialized: materialize it first")
        return artifact

    def _find(self, asset: str, partition: str) -> Artifact | None:
        return self._unpartitioned(asset) if partition == "all" else self._partitioned(asset, partition)

    def _materialized(self, asset: str, keys: Iterable[str]) -> list[str]:
        """Those of the shards that have the asset, in order."""
        keys = list(keys)
        found = self.store.each(lambda key: self._find(asset, key), keys)
        return [key for key, artifact in zip(keys, found, strict=True) if artifact is not None]

    def _inputs(self, asset: str, partitions: Iterable[str] = ("all",)) -> list[Input]:
        return self.store.each(lambda partition: self.current(asset, partition).manifest.as_input(), partitions)

    # Shards

    def available_shards(self) -> list[str]:
        """Keys of all shards that lie behind the corpora's sources now."""
        return [key for name in self.recipe.corpora for key in self._shards_of(name)]

    @cached_property
    def registered_shards(self) -> list[str]:
        """Registered shards that still lie behind the corpora's sources, in the order of their registration."""
        there = set(self.available_shards())
        return [key for key in registered_shards(self.store, self.recipe.name) if key in there]

    def shard(self, key: str) -> Shard:
        """The shard of that key.

        Raises:
            NotMaterialized: its file is gone, or the recipe has no such corpus.
        """
        corpus = key.split("--")[0]
        found = self._shards_of(corpus).get(key) if corpus in self.recipe.corpora else None
        if found is None:
            raise NotMaterialized(f"shard {key}: nothing lies behind it in the recipe's corpora any more")
        return found

    def arm_shards(self, arm: str) -> list[str]:
        """The shards that an arm takes, none if its mixture takes no corpus; without those missing, where it allows that.

        Raises:
            NotMaterialized: some are missing.
        """
        wanted, missing = self.wanted_shards(arm), self.missing_shards(arm)
        if missing and not self.recipe.arms[arm].allow_missing_shards:
            raise NotMaterialized(
                f"{arm}: {len(missing)} of {len(wanted)} shards are not tokenized yet ({', '.join(missing[:5])}{', …' * (len(missing) > 5)}): "
                "materialize them, pin the arm's shards, or set allow_missing_shards"
            )
        if wanted and len(missing) == len(wanted):
            raise NotMaterialized(f"{arm}: no shard is tokenized yet")
        return [key for key in wanted if key not in set(missing)]

    def wanted_shards(self, arm: str) -> list[str]:
        """The shards that an arm is about: of the corpora that its mixture takes, those that it names, or all; none if it takes no corpus."""
        taken = {key for keys in self.arm_tokens(arm).values() for key in keys}
        return [key for key in self._arm_keys(arm) if key in taken]

    def arm_tokens(self, arm: str) -> dict[str, list[str]]:
        """The tokens that an arm is about: assets with the shards that it takes of each."""
        assets = self.recipe.arms[arm].shard_assets(held_out=self.recipe.pretraining.held_out_documents > 0)
        keys = self._arm_keys(arm)
        return {asset: [key for key in keys if corpora is None or key.split("--")[0] in corpora] for asset, corpora in assets.items()}

    def _arm_keys(self, arm: str) -> list[str]:
        return list(self.recipe.arms[arm].shards or self.registered_shards)

    def missing_shards(self, arm: str) -> list[str]:
        """Those of the wanted shards that lack tokens that the arm takes."""
        missing: set[str] = set()
        for asset, keys in self.arm_tokens(arm).items():
            missing |= set(keys) - set(self._materialized(asset, keys))
        return [key for key in self.wanted_shards(arm) if key in missing]
