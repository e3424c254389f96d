"""What each artifact would be made from right now: the one place that knows identities of the whole graph.

An asset asks for its spec before it works, the schedule and the command line to see what is missing or stale.
"""

from collections.abc import Iterable
from functools import cache, cached_property, lru_cache
from importlib.metadata import version
from typing import Any, TypeVar

from instpt_assets.augmentation import phrasings
from instpt_assets.corpus.documentation import documentation_digest
from instpt_assets.corpus.files import SourceError
from instpt_assets.corpus.shards import Shard, list_shards, shard_digest, source_digest
from instpt_assets.errors import UserError
from instpt_assets.mixture.tokenizer import FILES as TOKENIZER_FILES
from instpt_assets.recipe.base import Part
from instpt_assets.recipe.corpora import Format
from instpt_assets.recipe.recipe import Recipe
from instpt_assets.recipe.writers import ImportedWriter, RuleBasedWriter
from instpt_assets.store.manifest import Input, Spec
from instpt_assets.store.store import Artifact, Store, source_input
from instpt_assets.synthesis.rule_based_phrasings import PHRASINGS, load_rule_phrasings
from instpt_assets.synthesis.rule_based_tasks import VERSION as RULES_VERSION
from instpt_assets.training.base_models import WEIGHT_FILES, find_base_model
from instpt_assets.training.writer_model import writer_model

CODE_VERSIONS = {
    "raw_corpus": 2,
    "document_signatures": 2,
    "duplicate_documents": 2,
    "evaluation_examples": 1,
    "clean_corpus": 2,
    "tuning_collection": 2,
    "instruction_synthesizer": 2,
    "synthesizer_quality": 2,
    "instruction_pairs": 2,
    "augmented_corpus": 2,
    "corpus_quality": 5,
    "tokenizer": 1,
    "tokenized_raw": 1,
    "tokenized_augmented": 1,
    "tokenized_instructions": 2,
    "tokenized_mixture": 1,
    "pretrained_checkpoint": 1,
    "instruction_tuned_checkpoint": 1,
    "eval_scores": 1,
    "instruction_tuned_eval_scores": 1,
    "comparison_report": 1,
}
"""Raised by hand when a stage's output changes; golden outputs in the tests guard them."""

SHARD_STAGES = ("raw_corpus", "document_signatures", "clean_corpus", "tokenized_raw")
PAIR_SET_SHARD_STAGES = ("instruction_pairs", "augmented_corpus", "tokenized_augmented")


_KEPT_ARTIFACTS = 4096
"""So many manifests of shards and seeds a plan keeps: each is small, but a store may have very many."""

Section = TypeVar("Section")


class NotMaterialized(UserError):
    """An input does not exist yet; the message says what to materialize first."""


class Plan:
    """Specs of the recipe's artifacts, resolved against the recipe's current artifacts in the store.

    A plan is one look: what it has read it does not read again. Take a new one when something was made.
    """

    def __init__(self, recipe: Recipe, store: Store, *, duplicates: Artifact | None = None) -> None:
        """Look at the store.

        Args:
            duplicates: taken in place of the current `duplicate_documents`.
        """
        self.recipe = recipe
        self._own_duplicates = duplicates
        self.store = store
        # What all shards share is read once a plan, not once a shard; what several stages of a shard need, once a shard.
        self._unpartitioned = cache(lambda asset: store.current(recipe.name, asset, "all"))
        self._partitioned = lru_cache(_KEPT_ARTIFACTS)(lambda asset, partition: store.current(recipe.name, asset, partition))
        self._base_model = cache(find_base_model)
        self._shards_of = cache(lambda name: {shard.key: shard for shard in list_shards(name, recipe.corpora[name])})

    def spec(self, asset: str, partition: str = "all") -> Spec:
        """What the artifact of that asset key (as a path) and partition would be made from.

        Raises:
            NotMaterialized: an input is missing.
        """
        owner, _, stage = asset.rpartition("/")
        method = getattr(self, f"_{stage}")
        recipe, inputs = method(*([owner] if owner else []), *([partition] if partition != "all" else []))
        return Spec(asset=asset, partition=partition, code_version=CODE_VERSIONS[stage], recipe=recipe, inputs=tuple(inputs))

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

    def is_current(self, asset: str, partition: str = "all") -> bool:
        """Whether the recipe's current artifact is what would be made now."""
        artifact = self._find(asset, partition)
        try:
            return artifact is not None and artifact.manifest.identity == self.spec(asset, partition).identity
        except NotMaterialized:
            return False

    def writing(self, pair_set: str) -> tuple[dict[str, Any], list[Input]]:
        """Recipe part of the pair set's pairs, and what they are made from beside a corpus.

        Raises:
            NotMaterialized: the synthesizer is missing.
        """
        part = self.recipe.pair_sets[pair_set]
        recipe = part.hashed(without={"checks"})
        if isinstance(part.writer, ImportedWriter):
            return {"writer": recipe["writer"], "fraction": recipe["fraction"]}, []
        if isinstance(part.writer, RuleBasedWriter):
            fields = {name: recipe[name] for name in ("writer", "fraction", "shots")}
            wording = source_input(PHRASINGS.name, load_rule_phrasings().digest)
            return {**fields, "max_passage_tokens": part.passage_tokens, "rules_version": RULES_VERSION}, [wording]
        if part.tuned_here:
            return recipe, self._inputs("instruction_synthesizer")
        model = writer_model(part.writer)
        if model is None:
            return recipe, []
        writer, source = self._at_revision(part.writer, model.patterns, model.field)
        return {**recipe, "writer": writer}, source

    def _find(self, asset: str, partition: str) -> Artifact | None:
        return self._unpartitioned(asset) if partition == "all" else self._partitioned(asset, partition)

    def _materialized(self, asset: str, keys: Iterable[str]) -> list[str]:
        """Those of the shards that have the asset, in order."""
        keys = list(keys)
        found = self.store.each(lambda key: self._find(asset, key), keys)
        return [key for key, artifact in zip(keys, found, strict=True) if artifact is not None]

    # Shards

    def available_shards(self) -> list[str]:
        """Keys of all shards that lie behind the corpora's sources now."""
        return [key for name in self.recipe.corpora for key in self._shards_of(name)]

    @cached_property
    def registered_shards(self) -> list[str]:
        """Registered shards that still lie behind the corpora's sources, in the order of their registration."""
        there = set(self.available_shards())
        return [key for key in self.store.registered_shards(self.recipe.name) if key in there]

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

    def arm_shards(self, arm: str) -> list[str]:
        """The shards that an arm takes, none if its mixture has no corpus; without those missing, where it allows that.

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
        """The shards that an arm is about: those that it names, or all; none if its mixture has no corpus."""
        part = self.recipe.arms[arm]
        return list(part.shards or self.registered_shards) if part.uses("corpus") else []

    def missing_shards(self, arm: str) -> list[str]:
        """Those of them that lack tokens that the arm takes."""
        pair_set = self.recipe.arms[arm].pair_set
        assets = ["tokenized_raw", *([f"{pair_set}/tokenized_augmented"] if pair_set else [])]
        wanted = self.wanted_shards(arm)
        there = [set(self._materialized(asset, wanted)) for asset in assets]
        return [key for key in wanted if not all(key in found for found in there)]

    # Recipe part and inputs of each stage; named after the stage

    def _raw_corpus(self, key: str) -> tuple[dict[str, Any], Iterable[Input]]:
        shard = self.shard(key)
        corpus = self.recipe.corpora[shard.corpus]
        try:
            digest = shard_digest(shard)
        except SourceError as error:  # this shard's trouble alone: the others are looked at all the same
            raise NotMaterialized(f"{error}: mend the file, or take it away") from error
        return {"name": shard.corpus, **corpus.hashed()}, [source_input(shard.url, digest)]

    def _document_signatures(self, key: str) -> tuple[dict[str, Any], Iterable[Input]]:
        return self.recipe.deduplication.hashed(without={"exact", "threshold"}), self._inputs("raw_corpus", [key])

    def _duplicate_documents(self) -> tuple[dict[str, Any], Iterable[Input]]:
        keys = self._materialized("document_signatures", self.registered_shards)
        if not keys:
            raise NotMaterialized("document_signatures: no shard is materialized yet")
        return {**self.recipe.deduplication.hashed(), "order": keys}, self._inputs("document_signatures", keys)

    def _clean_corpus(self, key: str) -> tuple[dict[str, Any], Iterable[Input]]:
        duplicates = (self._own_duplicates or self.current("duplicate_documents")).manifest
        own = duplicates.by_name.get(f"removed/{key}.parquet")
        if own is None:
            raise NotMaterialized(f"duplicate_documents knows no shard {key}: materialize duplicate_documents again")
        # Only this shard's own list counts, so that a new shard changes no other.
        removed = Input(asset=duplicates.asset, partition="all", identity=duplicates.identity, digest=own.sha256)
        return self.recipe.cleaning.hashed(), [*self._inputs("raw_corpus", [key]), removed, *self._evaluation_index()]

    def _evaluation_examples(self) -> tuple[dict[str, Any], Iterable[Input]]:
        decontamination = _given(self.recipe.decontamination, "decontamination")
        # What only scores changes no example.
        evaluation = self.recipe.evaluation.hashed(without={"limit": True, "harness_tasks": {"__all__": {"metric", "num_fewshot"}}})
        sources = [_source(f"decontamination.sources.{name}", s.source, s.format) for name, s in decontamination.sources.items()]
        recipe = {"decontamination": decontamination.hashed(), "evaluation": evaluation, "lm_eval": version("lm-eval")}
        return recipe, [*self._held_out(), *sources]

    def _evaluation_index(self) -> list[Input]:
        """The index of evaluation examples, where the recipe decontaminates."""
        return self._inputs("evaluation_examples") if self.recipe.decontamination is not None else []

    def _phrasings(self) -> Input:
        """The wording that layouts draw from: files that a person may edit."""
        return source_input(phrasings.PHRASINGS.name, phrasings.load_phrasings().digest)

    def _tuning_collection(self) -> tuple[dict[str, Any], Iterable[Input]]:
        tuning = _given(self.recipe.tuning, "tuning")
        sources = [_source(f"tuning.sources.{name}", s.source) for name, s in tuning.sources.items()]
        return tuning.hashed(), [*sources, *self._evaluation_index()]

    def _instruction_synthesizer(self) -> tuple[dict[str, Any], Iterable[Input]]:
        synthesizer = _given(self.recipe.synthesizer, "synthesizer")
        recipe, base_model = self._at_revision(synthesizer, (*WEIGHT_FILES, *TOKENIZER_FILES))
        return recipe, [*self._inputs("tuning_collection"), *self._inputs("clean_corpus", synthesizer.pinned_shards), *base_model]

    def _synthesizer_quality(self) -> tuple[dict[str, Any], Iterable[Input]]:
        return {}, [*self._inputs("tuning_collection"), *self._inputs("instruction_synthesizer")]

    def _instruction_pairs(self, pair_set: str, key: str) -> tuple[dict[str, Any], Iterable[Input]]:
        corpus = self._inputs("clean_corpus", [key])
        recipe, inputs = self.writing(pair_set)
        return recipe, [*corpus, *inputs]

    def _augmented_corpus(self, pair_set: str, key: str) -> tuple[dict[str, Any], Iterable[Input]]:
        # Licences and metadata come from clean_corpus.
        return {"pair_set": pair_set, **self.recipe.layouts.hashed()}, [
            *self._inputs(f"{pair_set}/instruction_pairs", [key]),
            *self._inputs("clean_corpus", [key]),
            *self._evaluation_index(),
            self._phrasings(),
        ]

    def _corpus_quality(self, pair_set: str) -> tuple[dict[str, Any], Iterable[Input]]:
        keys = self._materialized(f"{pair_set}/augmented_corpus", self.registered_shards)
        if not keys:
            raise NotMaterialized(f"{pair_set}/augmented_corpus: no shard is materialized yet")
        quality, judge_model = self._quality()
        return {"corpus_quality": quality, "layouts": self.recipe.layouts.hashed()}, [
            *self._inputs(f"{pair_set}/instruction_pairs", keys),
            *self._inputs(f"{pair_set}/augmented_corpus", keys),
            # Its counts of what was left out as contaminated.
            *(self._inputs("clean_corpus", keys) if self.recipe.decontamination is not None else []),
            *judge_model,
        ]

    def _quality(self) -> tuple[dict[str, Any], list[Input]]:
        """How quality is measured, as it is hashed, and the judge's model, if it brings one."""
        judge, recipe = self.recipe.corpus_quality.judge, self.recipe.corpus_quality.hashed()
        model = None if judge is None else writer_model(judge.writer)
        if judge is None or model is None:
            return recipe, []
        pinned, source = self._at_revision(judge, model.patterns, model.field)
        return {**recipe, "judge": pinned}, source

    def _tokenizer(self) -> tuple[dict[str, Any], Iterable[Input]]:
        recipe, base_model = self._at_revision(self.recipe.tokenizer, TOKENIZER_FILES)
        return recipe, [*self._inputs("clean_corpus", self.recipe.tokenizer.pinned_shards), *base_model]

    def _tokenized_raw(self, key: str) -> tuple[dict[str, Any], Iterable[Input]]:
        return {}, [*self._inputs("clean_corpus", [key]), *self._inputs("tokenizer")]

    def _tokenized_augmented(self, pair_set: str, key: str) -> tuple[dict[str, Any], Iterable[Input]]:
        return {}, [*self._inputs(f"{pair_set}/augmented_corpus", [key]), *self._inputs("tokenizer")]

    def _tokenized_instructions(self) -> tuple[dict[str, Any], Iterable[Input]]:
        inputs = self._inputs("tokenizer")
        recipe: dict[str, Any] = {}
        if self.recipe.tuning is not None:
            recipe["layouts"] = self.recipe.layouts.hashed()
            inputs += [*self._inputs("tuning_collection"), self._phrasings()]
        if self.recipe.general_instructions is not None:
            general = self.recipe.general_instructions
            recipe["general_instructions"] = general.hashed()
            inputs.append(_source("general_instructions.source", general.source))
        return recipe, inputs

    def _tokenized_mixture(self, arm: str, seed: str) -> tuple[dict[str, Any], Iterable[Input]]:
        part = self.recipe.arms[arm]
        keys = self.arm_shards(arm)
        recipe = {
            "mixture": [component.hashed() for component in part.mixture],
            "seed": int(seed.removeprefix("seed-")),
            "sequence_length": self.recipe.pretraining.sequence_length,
            "token_budget": self.recipe.pretraining.optimization.token_budget,
            "batch_tokens": self.recipe.pretraining.optimization.batch_tokens,
        }
        inputs = self._inputs("tokenized_raw", keys)
        if part.pair_set is not None:
            inputs += self._inputs(f"{part.pair_set}/tokenized_augmented", keys)
        if part.uses("tuning") or part.uses("general"):
            inputs += self._inputs("tokenized_instructions")
        return recipe, inputs

    def _pretrained_checkpoint(self, arm: str, seed: str) -> tuple[dict[str, Any], Iterable[Input]]:
        pretraining, base_model = self._at_revision(self.recipe.pretraining, WEIGHT_FILES)
        recipe = {"pretraining": pretraining, "seed": int(seed.removeprefix("seed-"))}
        return recipe, [*self._inputs(f"{arm}/tokenized_mixture", [seed]), *self._inputs("tokenizer"), *base_model]

    def _instruction_tuned_checkpoint(self, arm: str, seed: str) -> tuple[dict[str, Any], Iterable[Input]]:
        tuning = _given(self.recipe.instruction_tuning, "instruction_tuning")
        recipe = {"instruction_tuning": tuning.hashed(), "seed": int(seed.removeprefix("seed-"))}
        return recipe, [
            *self._inputs(f"{arm}/pretrained_checkpoint", [seed]),
            *self._inputs("tokenized_instructions"),
            *self._inputs("tokenizer"),
        ]

    def _eval_scores(self, arm: str, seed: str) -> tuple[dict[str, Any], Iterable[Input]]:
        return self._scoring(), [*self._inputs(f"{arm}/pretrained_checkpoint", [seed]), *self._held_out()]

    def _instruction_tuned_eval_scores(self, arm: str, seed: str) -> tuple[dict[str, Any], Iterable[Input]]:
        return self._scoring(), [*self._inputs(f"{arm}/instruction_tuned_checkpoint", [seed]), *self._held_out()]

    def _comparison_report(self) -> tuple[dict[str, Any], Iterable[Input]]:
        stages = ["eval_scores", *(["instruction_tuned_eval_scores"] if self.recipe.instruction_tuning else [])]
        inputs = [i for stage in stages for arm in self.recipe.arms for i in self._inputs(f"{arm}/{stage}", self.recipe.seeds)]
        metrics = {task.task: task.metric for task in self.recipe.evaluation.harness_tasks if task.metric is not None}
        return {"arms": list(self.recipe.arms), "metrics": metrics}, inputs

    def _at_revision(self, part: Part, files: tuple[str, ...], field: str = "model") -> tuple[dict[str, Any], list[Input]]:
        """The part as it is hashed, with what its base model is now in the place of its name, and that revision as an input."""
        model = getattr(part, field)
        if not isinstance(model, str):
            return part.hashed(), []
        found = self._base_model(model, files)
        return {**part.hashed(), field: found.pinned}, [source_input(found.url, found.digest)]

    def _scoring(self) -> dict[str, Any]:
        # Every metric is kept: the one that a task names is only shown. What a task asks, and how, is lm-eval's release.
        evaluation = self.recipe.evaluation.hashed(without={"harness_tasks": {"__all__": {"metric"}}})
        return {"evaluation": evaluation, "lm_eval": version("lm-eval")}

    def _held_out(self) -> list[Input]:
        url = self.recipe.evaluation.held_out
        return [] if url is None else [source_input(url, documentation_digest(url))]

    def _inputs(self, asset: str, partitions: Iterable[str] = ("all",)) -> list[Input]:
        return self.store.each(lambda partition: self.current(asset, partition).manifest.as_input(), partitions)


def _source(field: str, url: str, wanted: Format | None = None) -> Input:
    """What lies behind a source now; errors name the field."""
    try:
        return source_input(url, source_digest(url, wanted))
    except SourceError as error:
        raise SourceError(f"{field}: {error}") from error


def _given(section: Section | None, name: str) -> Section:
    if section is None:
        raise ValueError(f"the recipe has no section {name}")
    return section
