"""Recipe of the synthesizer (tuning) and of the pair sets that it writes."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from instpt_assets.recipe.base import LATER, Part
from instpt_assets.recipe.lora import Lora
from instpt_assets.recipe.sources import Source
from instpt_assets.recipe.training import Model, ModelShape, Optimization, check_adapted
from instpt_assets.recipe.wired_start import wired_start_problem
from instpt_assets.recipe.writers import ImportedWriter, RuleBasedWriter, SynthesizerWriter, Writer

Dtype = Literal["bfloat16", "float16", "float32"]


class TuningSource(Part):
    """One task set for tuning: contexts with instruction-response pairs."""

    source: Source
    """JSON Lines (plain, .gz, .zst) with `context` and `pairs` [{question, answer, options, rationale}], or `pydoc://…` from which pairs with known answers are derived by rules. Relative paths follow the current folder."""
    max_examples: int = Field(default=10_000, ge=1)
    """At most so many contexts; those with the most pairs stay (PAPER.md section 1)."""


class Tuning(Part):
    """The tuning collection."""

    sources: dict[str, TuningSource] = Field(min_length=1)
    """Task sets by name."""
    held_out_fraction: float = Field(default=0.05, gt=0, lt=1)
    """Share of each set's contexts, chosen by hash, kept out of training to measure the synthesizer's quality."""
    seed: int = 0
    """Seed of the rules' choices."""


class Curriculum(Part):
    """For a synthesizer from a random start: what makes copying appear early (phases before the tuning data)."""

    wired_start: bool = True
    """Initial weights hold an induction circuit: previous-token heads in layer 0, match-and-copy heads in layer 1."""
    span_copy_tokens: int = Field(default=100_000, ge=0)
    """Training tokens of repeated random spans."""
    rote_tokens: int = Field(default=900_000, ge=0)
    """Training tokens of rote tasks (what comes after, cloze) and rule-made questions on short passages."""


class Synthesizer(Part):
    """The model tuned to write pairs, and how."""

    model: Model
    """A base model to fine-tune (a folder, or a hub name, best with its commit: `name@commit`), or a Mistral shape to train from scratch."""
    vocab_size: int | None = Field(default=None, ge=300)
    """Size of its own byte-level BPE; exactly when it is trained from scratch."""
    pinned_shards: tuple[str, ...] = ()
    """Shards of `clean_corpus` that a synthesizer from scratch learns its tokenizer and curriculum from; a new shard changes nothing."""
    curriculum: Curriculum | None = None
    """Phases before the tuning data; only for a model from scratch."""
    sequence_length: int = Field(default=4096, ge=64)
    """Tokens a training sequence; one-shot examples of one dataset are concatenated up to it."""
    optimization: Optimization
    """Steps and optimizer."""
    lora: Annotated[Lora | None, LATER] = None
    """Train adapters on the base model in place of all its weights: what fits a model of 7 billion parameters on one GPU. A base model reads the markers as ordinary text, so no embedding is new."""

    @model_validator(mode="after")
    def _adapted(self) -> Self:
        check_adapted(self.lora, self.model)
        return self

    @model_validator(mode="after")
    def _from_scratch(self) -> Self:
        scratch = isinstance(self.model, ModelShape)
        if scratch != (self.vocab_size is not None):
            raise ValueError("vocab_size is needed exactly when model is a shape (trained from scratch)")
        if not scratch and (self.curriculum or self.pinned_shards):
            raise ValueError("curriculum and pinned_shards are for a model from scratch; a base model has learned already")
        if scratch and not self.pinned_shards:
            raise ValueError("pinned_shards must name the shards that a synthesizer from scratch learns its tokenizer from")
        return self

    @model_validator(mode="after")
    def _curriculum(self) -> Self:
        if self.curriculum is None:
            return self
        before, optimization = self.curriculum.span_copy_tokens + self.curriculum.rote_tokens, self.optimization
        if before + self.sequence_length > optimization.num_steps * optimization.batch_tokens:
            raise ValueError(
                f"optimization.token_budget {optimization.token_budget} leaves nothing for the tuning data behind the curriculum's {before} "
                "tokens: raise it, or lower curriculum.span_copy_tokens or rote_tokens"
            )
        if self.curriculum.wired_start and isinstance(self.model, ModelShape):
            problem = wired_start_problem(self.model)
            if problem is not None:
                raise ValueError(f"model.{problem}; or set curriculum.wired_start to false")
        return self


class PairChecks(Part):
    """Thresholds beyond which the UI warns of a shard's pairs. They decide nothing of what is written and enter no identity."""

    max_no_valid_pair: float = Field(default=0.3, ge=0, le=1)
    """Share of the synthesized passages that may end without a valid pair."""
    min_pairs_per_passage: float = Field(default=1.0, ge=0)
    """Valid pairs a synthesized passage, on average."""
    max_duplicate_instructions: float = Field(default=0.3, ge=0, le=1)
    """Share of a shard's pairs whose instruction stands in an earlier pair of the shard too (letter case and blanks apart)."""
    max_degenerate: float = Field(default=0.05, ge=0, le=1)
    """Share of the pairs that repeat themselves: most of their word trigrams occur before in the same pair."""
    max_unsupported: float = Field(default=0.6, ge=0, le=1)
    """Share of the pairs whose response is not supported by the passage: fewer than half of its content words stand in it."""


FRAME_TOKENS = 16
"""Tokens that a shot has in the native format beside passage and completion, at most about."""


class PairSet(Part):
    """One way of writing pairs over the shards."""

    writer: Annotated[Writer, LATER] = SynthesizerWriter()
    """What writes the pairs; by default the synthesizer that the recipe tunes."""
    shots: int = Field(default=2, ge=1)
    """Passages a chain (M): each sees the earlier ones and their pairs. The paper: 2 for general, 3 for domain text."""
    fraction: float = Field(default=1.0, gt=0, le=1)
    """Share of the documents that get pairs, chosen by hash of their ids."""
    max_model_len: int = Field(default=4096, ge=64)
    """Window in tokens: a chain's earlier shots, the passage and its completion must fit."""
    max_new_tokens: int = Field(default=400, ge=8)
    """Longest completion a passage, in tokens."""
    max_passage_tokens: int | None = Field(default=None, ge=16)
    """Longest passage in tokens; by default what lets `shots` of them fit the window. Without a tokenizer (writer.kind rule_based) a token is four bytes of UTF-8."""
    temperature: float = Field(default=0.0, ge=0)
    """Sampling temperature; 0 is greedy, as in the paper."""
    seed: int = 0
    """Seed of sampling, where temperature is not 0."""
    dtype: Dtype = "bfloat16"
    """Arithmetic of the writer's weights and activations."""
    quantization: Annotated[str | None, LATER] = Field(default=None, min_length=1)
    """How vLLM quantizes the writer's weights when it loads them, by vLLM's name (`fp8`, …); a checkpoint that is quantized already needs none."""
    kv_cache_dtype: Annotated[str, LATER] = Field(default="auto", min_length=1)
    """Type of the KV cache, by vLLM's name (`fp8`, `fp8_e5m2`, …); `auto`: as `dtype`."""
    checks: Annotated[PairChecks, LATER] = PairChecks()
    """When the UI warns of a shard's pairs."""

    @property
    def passage_tokens(self) -> int:
        """`max_passage_tokens` or its default, (max_model_len - M * max_new_tokens) / M less the markers of a shot."""
        return self.max_passage_tokens or self.max_model_len // self.shots - self.max_new_tokens - FRAME_TOKENS

    @property
    def tuned_here(self) -> bool:
        """Whether its writer is the synthesizer that the recipe tunes."""
        return self.writer == SynthesizerWriter()

    @model_validator(mode="after")
    def _without_model(self) -> Self:
        useful = {"writer", "fraction", "checks"}
        if isinstance(self.writer, RuleBasedWriter):
            useful |= {"shots", "max_passage_tokens"}
        elif not isinstance(self.writer, ImportedWriter):
            return self
        generating = self.model_fields_set - useful
        if generating:
            raise ValueError(f"{', '.join(sorted(generating))}: nothing is generated where writer.kind is {self.writer.kind}; leave it out")
        return self

    @model_validator(mode="after")
    def _window(self) -> Self:
        if isinstance(self.writer, RuleBasedWriter):
            if self.passage_tokens < 16:
                raise ValueError(f"shots {self.shots} leaves no room for passages by default: set max_passage_tokens, or lower shots")
            return self
        if self.passage_tokens < 16 or self.passage_tokens + self.max_new_tokens + FRAME_TOKENS > self.max_model_len:
            raise ValueError(
                f"max_model_len {self.max_model_len} cannot hold passages of {self.passage_tokens} tokens with "
                f"max_new_tokens {self.max_new_tokens}: raise max_model_len, or lower shots or max_new_tokens"
            )
        return self


class Layouts(Part):
    """Probabilities of the layouts of an augmented text (PAPER.md section 3)."""

    dialog: float = Field(default=0.05, ge=0, le=1)
    """Dialog."""
    numbered: float = Field(default=0.05, ge=0, le=1)
    """Numbered questions; only where every shot has two pairs or more, else classic."""
    inline_few_shot: float = Field(default=0.05, ge=0, le=1)
    """Inline few-shot; likewise."""
    next_turn_dialog: float = Field(default=0.05, ge=0, le=1)
    """Next-turn dialog; likewise."""
    pairs_first: float = Field(default=0.05, ge=0, le=1)
    """Share of classic and dialog texts in which the pairs stand before the passage."""
    seed: int = 0
    """Seed of all draws."""

    @property
    def classic(self) -> float:
        """What the other layouts leave (the paper: 0.8)."""
        return 1.0 - self.dialog - self.numbered - self.inline_few_shot - self.next_turn_dialog

    @model_validator(mode="after")
    def _sum(self) -> Self:
        if self.classic < -1e-9:
            raise ValueError("dialog, numbered, inline_few_shot and next_turn_dialog add up to more than 1")
        return self
