"""What each artifact would be made from right now: the one place that knows identities of the whole graph.

An asset asks for its spec before it works, the schedule and the command line to see what is missing or stale.
"""

from collections.abc import Iterable
from functools import cached_property

from instpt_assets.defs.current_artifacts import NotMaterialized
from instpt_assets.defs.stage_inputs import StageInputs
from instpt_assets.store.manifest import Spec

CODE_VERSIONS = {
    "raw_corpus": 2,
    "document_signatures": 2,
    "duplicate_documents": 2,
    "evaluation_examples": 1,
    "clean_corpus": 2,
    "tuning_collection": 2,
    "instruction_synthesizer": 3,
    "synthesizer_quality": 2,
    "instruction_pairs": 2,
    "augmented_corpus": 2,
    "corpus_quality": 5,
    "tokenizer": 1,
    "tokenized_raw": 1,
    "tokenized_augmented": 1,
    "tokenized_instructions": 2,
    "tokenized_mixture": 2,
    "pretrained_checkpoint": 2,
    "instruction_tuned_checkpoint": 2,
    "eval_scores": 1,
    "instruction_tuned_eval_scores": 1,
    "comparison_report": 2,
}
"""Raised by hand when a stage's output changes; golden outputs in the tests guard them."""

SHARD_STAGES = ("raw_corpus", "document_signatures", "clean_corpus", "tokenized_raw")
PAIR_SET_SHARD_STAGES = ("instruction_pairs", "augmented_corpus", "tokenized_augmented")


class Plan(StageInputs):
    """Specs of the recipe's artifacts, resolved against the recipe's current artifacts in the store.

    A plan is one look: what it has read it does not read again. Take a new one when something was made.
    """

    def spec(self, asset: str, partition: str = "all") -> Spec:
        """What the artifact of that asset key (as a path) and partition would be made from.

        Raises:
            NotMaterialized: an input is missing.
        """
        owner, _, stage = asset.rpartition("/")
        method = getattr(self, f"_{stage}")
        recipe, inputs = method(*([owner] if owner else []), *([partition] if partition != "all" else []))
        return Spec(asset=asset, partition=partition, code_version=CODE_VERSIONS[stage], recipe=recipe, inputs=tuple(inputs))

    def is_current(self, asset: str, partition: str = "all") -> bool:
        """Whether the recipe's current artifact is what would be made now."""
        artifact = self._find(asset, partition)
        try:
            return artifact is not None and artifact.manifest.identity == self.spec(asset, partition).identity
        except NotMaterialized:
            return False

    @property
    def shard_assets(self) -> list[str]:
        """What the recipe makes of each shard alone."""
        return [*SHARD_STAGES, *(f"{name}/{stage}" for name in self.recipe.pair_sets for stage in PAIR_SET_SHARD_STAGES)]

    def shard_is_current(self, key: str) -> bool:
        """Whether everything that the recipe makes of this shard alone is in the store and up to date."""
        return self._rules_are_current and all(self.is_current(asset, key) for asset in self.shard_assets)

    @cached_property
    def _rules_are_current(self) -> bool:
        """Whether the corpus was compared, with itself and with the evaluation, as it would be now: a shard's own artifacts do not tell.

        (That the lists of duplicates know nothing of the newest shards makes no older one stale. But what stood in a shard that is gone
        is no duplicate any more in those behind it.)
        """
        duplicates = self._find("duplicate_documents", "all")
        if duplicates is not None:
            manifest = duplicates.manifest
            order, registered = manifest.recipe["order"], set(self.registered_shards)
            left = [key for key in order if key in registered]
            made_from = (manifest.recipe, manifest.code_version, order[: len(left)])
            if made_from != ({**self.recipe.deduplication.hashed(), "order": order}, CODE_VERSIONS["duplicate_documents"], left):
                return False
        return self.recipe.decontamination is None or self.is_current("evaluation_examples")

    def stale_shards(self, keys: Iterable[str]) -> list[str]:
        """Those of the shards of which something is missing or stale, in order."""
        keys = list(keys)
        # What all need is looked up once, before many look at the same time.
        self.available_shards()
        _ = self._rules_are_current
        current = self.store.each(self.shard_is_current, keys)
        return [key for key, is_current in zip(keys, current, strict=True) if not is_current]
