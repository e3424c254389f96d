"""What each stage's artifact would be made from right now: its part of the recipe, and its inputs."""

from collections.abc import Iterable
from functools import cache
from importlib.metadata import version
from typing import Any, TypeVar

from instpt_assets.augmentation import phrasings
from instpt_assets.corpus.documentation import documentation_digest
from instpt_assets.corpus.files import SourceError
from instpt_assets.corpus.shards import shard_digest, source_digest
from instpt_assets.defs.current_artifacts import CurrentArtifacts, NotMaterialized
from instpt_assets.mixture.tokenizer import FILES as TOKENIZER_FILES
from instpt_assets.recipe.base import Part
from instpt_assets.recipe.corpora import Format
from instpt_assets.recipe.recipe import Recipe
from instpt_assets.recipe.writers import ImportedWriter, RuleBasedWriter
from instpt_assets.store.manifest import Input
from instpt_assets.store.store import Artifact, Store, source_input
from instpt_assets.synthesis.rule_based_phrasings import PHRASINGS, load_rule_phrasings
from instpt_assets.synthesis.rule_based_tasks import VERSION as RULES_VERSION
from instpt_assets.training.base_models import WEIGHT_FILES, find_base_model
from instpt_assets.training.writer_model import writer_model

Section = TypeVar("Section")


class StageInputs(CurrentArtifacts):
    """Recipe part and inputs of each stage, by methods that are named after the stages (their first arguments: pair set or arm)."""

    def __init__(self, recipe: Recipe, store: Store, *, duplicates: Artifact | None = None) -> None:
        """Look at the store.

        Args:
            duplicates: taken in place of the current `duplicate_documents`.
        """
        super().__init__(recipe, store)
        self._own_duplicates = duplicates
        self._base_model = cache(find_base_model)

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
        part, pretraining = self.recipe.arms[arm], self.recipe.pretraining
        keys = set(self.arm_shards(arm))
        recipe = {
            "mixture": [component.hashed() for component in part.mixture],
            "seed": int(seed.removeprefix("seed-")),
            "sequence_length": pretraining.sequence_length,
            "token_budget": pretraining.optimization.token_budget,
            "batch_tokens": pretraining.optimization.batch_tokens,
        }
        # Fields that came later: they are hashed where they are set.
        hashed = pretraining.hashed()
        recipe |= {name: hashed[name] for name in ("packing", "document_attention", "held_out_documents") if name in hashed}
        recipe |= {name: value for name, value in hashed["optimization"].items() if name == "extended_from"}
        inputs = [i for asset, wanted in self.arm_tokens(arm).items() for i in self._inputs(asset, [key for key in wanted if key in keys])]
        if part.takes_instructions:
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
