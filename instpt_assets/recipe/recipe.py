"""The recipe: everything that decides what comes out."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from instpt_assets.recipe.arms import Arm
from instpt_assets.recipe.base import LATER, Name, Part
from instpt_assets.recipe.cleaning import Cleaning
from instpt_assets.recipe.corpora import Corpus
from instpt_assets.recipe.decontamination import Decontamination
from instpt_assets.recipe.deduplication import Deduplication
from instpt_assets.recipe.evaluation import Evaluation
from instpt_assets.recipe.quality import CorpusQuality
from instpt_assets.recipe.sources import Files
from instpt_assets.recipe.synthesis import Layouts, PairSet, Synthesizer, Tuning
from instpt_assets.recipe.training import InstructionTuning, ModelShape, Pretraining, TokenizerRecipe

RESERVED = frozenset(
    """
    raw_corpus document_signatures duplicate_documents evaluation_examples clean_corpus tuning_collection instruction_synthesizer synthesizer_quality
    tokenizer tokenized_raw tokenized_instructions comparison_report corpus synthesizer tokens comparison
    """.split()
)
"""Names of assets and groups that every recipe may have; an arm or a pair set is a group, and the first part of its assets' keys."""


class GeneralInstructions(Part):
    """General instructions without context, mixed into continual pre-training or used for instruction tuning."""

    source: Files
    """JSON Lines with `instruction` and `response` (and, optionally, `reasoning`). A relative path follows the current folder."""
    max_examples: int | None = Field(default=None, ge=1)
    """At most so many, in the source's order."""


class Recipe(Part):
    """Everything that decides what comes out; each asset hashes the part that it depends on."""

    name: Name
    """Names the recipe's pointers in the store and its Dagster instance."""
    description: str = ""
    """One line for people; not hashed."""
    corpora: dict[Name, Corpus] = Field(min_length=1)
    """Corpora by name."""
    cleaning: Cleaning = Cleaning()
    """Rules for `clean_corpus`."""
    deduplication: Deduplication = Deduplication()
    """Removal of duplicates over all shards."""
    decontamination: Annotated[Decontamination | None, LATER] = None
    """Removal of what shares words with an evaluation example; none by default."""
    tuning: Tuning | None = None
    """The tuning collection."""
    synthesizer: Synthesizer | None = None
    """The model tuned to write pairs."""
    pair_sets: dict[Name, PairSet] = {}
    """Ways of writing pairs, by name."""
    layouts: Layouts = Layouts()
    """How pairs become pre-training text."""
    corpus_quality: Annotated[CorpusQuality, LATER] = CorpusQuality()
    """How a pair set's quality is measured; enters `<pair set>/corpus_quality` alone."""
    general_instructions: GeneralInstructions | None = None
    """General instructions, if any arm or the instruction tuning uses them."""
    tokenizer: TokenizerRecipe
    """The tokenizer of the pre-trained models."""
    pretraining: Pretraining
    """The model and training that all arms share."""
    instruction_tuning: InstructionTuning | None = None
    """Instruction tuning after pre-training; none by default."""
    arms: dict[Name, Arm] = Field(min_length=1)
    """The sides of the comparison, by name."""
    num_seeds: int = Field(default=1, ge=1, le=100)
    """Repeats of every arm."""
    evaluation: Evaluation
    """What the checkpoints are scored on."""

    @model_validator(mode="after")
    def _references(self) -> Self:
        problems: list[str] = []
        for name, arm in self.arms.items():
            for index, component in enumerate(arm.mixture):
                where = f"arms.{name}.mixture.{index}"
                if component.pair_set is not None and component.pair_set not in self.pair_sets:
                    problems.append(f"{where}.pair_set: unknown '{component.pair_set}' (the recipe has: {_names(self.pair_sets)})")
                unknown = [corpus for corpus in component.corpora or () if corpus not in self.corpora]
                if unknown:
                    problems.append(f"{where}.corpora: unknown {_names(unknown)} (the recipe has: {_names(self.corpora)})")
                if component.component == "tuning" and self.tuning is None:
                    problems.append(f"{where}: component 'tuning' needs the section tuning")
                if component.component == "general" and self.general_instructions is None:
                    problems.append(f"{where}: component 'general' needs the section general_instructions")
            problems += self._wrong_shards(f"arms.{name}.shards", arm.shards or ())
        both = sorted(set(self.arms) & set(self.pair_sets))
        if both:
            problems.append(f"arms and pair_sets share the name {_names(both)}: asset keys would clash")
        taken = sorted({*self.arms, *self.pair_sets} & RESERVED)
        if taken:
            problems.append(f"arms and pair_sets cannot be named {_names(taken)}: assets or groups of the graph have these names")
        tuned_here = {name: part for name, part in self.pair_sets.items() if part.tuned_here}
        if tuned_here and self.synthesizer is None:
            problems.append(
                f"pair_sets {_names(tuned_here)}: the section synthesizer is missing, which tunes their writer; or let them name a writer: "
                "a model that is there (writer: {model: …}), a chat model, servers or imported pairs"
            )
        if self.synthesizer is not None:
            if self.tuning is None:
                problems.append("synthesizer needs the section tuning")
            problems += self._wrong_shards("synthesizer.pinned_shards", self.synthesizer.pinned_shards)
            shape = self.synthesizer.model
            for name, pair_set in tuned_here.items():
                if isinstance(shape, ModelShape) and pair_set.max_model_len > shape.max_position_embeddings:
                    problems.append(
                        f"pair_sets.{name}.max_model_len {pair_set.max_model_len} exceeds the synthesizer's max_position_embeddings {shape.max_position_embeddings}"
                    )
        problems += self._wrong_shards("tokenizer.pinned_shards", self.tokenizer.pinned_shards)
        model = self.pretraining.model
        for part, section in (
            ("pretraining", self.pretraining),
            ("instruction_tuning", self.instruction_tuning),
            ("synthesizer", self.synthesizer),
        ):
            if section is None:
                continue
            trained = section.model if isinstance(section, Synthesizer) else model
            if isinstance(trained, ModelShape) and section.sequence_length > trained.max_position_embeddings:
                problems.append(
                    f"{part}.sequence_length {section.sequence_length} exceeds the model's max_position_embeddings {trained.max_position_embeddings}"
                )
            if section.optimization.batch_tokens % section.sequence_length:
                problems.append(
                    f"{part}.optimization.batch_tokens {section.optimization.batch_tokens} is no multiple of sequence_length {section.sequence_length}"
                )
        if self.instruction_tuning is not None and self.general_instructions is None and self.tuning is None:
            problems.append("instruction_tuning needs general_instructions or tuning")
        tuned_on = (self.instruction_tuning.components if self.instruction_tuning else None) or ()
        if "general" in tuned_on and self.general_instructions is None:
            problems.append("instruction_tuning.components: 'general' needs the section general_instructions")
        if "tuning_pairs" in tuned_on and self.tuning is None:
            problems.append("instruction_tuning.components: 'tuning_pairs' needs the section tuning")
        if not isinstance(model, ModelShape) and self.tokenizer.model is None:
            problems.append("a base model (pretraining.model) needs its own tokenizer: give tokenizer.model")
        if problems:
            raise ValueError("\n".join(problems))
        return self

    def _wrong_shards(self, field: str, shards: tuple[str, ...]) -> list[str]:
        return [
            f"{field}: '{shard}' names no corpus of the recipe (shards are <corpus>--<shard>; corpora: {_names(self.corpora)})"
            for shard in shards
            if shard.split("--")[0] not in self.corpora or "--" not in shard
        ] + [f"{field}: '{shard}' stands there twice" for shard in sorted({shard for shard in shards if shards.count(shard) > 1})]

    @property
    def seeds(self) -> tuple[str, ...]:
        """Partition keys of the repeats: seed-0, seed-1, …."""
        return tuple(f"seed-{index}" for index in range(self.num_seeds))


def _names(names: object) -> str:
    return ", ".join(f"'{name}'" for name in names) or "none"  # type: ignore[attr-defined]
