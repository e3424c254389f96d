"""Recipe of the models: their shape, the optimizer, pre-training and instruction tuning."""

from itertools import pairwise
from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, PositiveInt, Tag, model_validator

from instpt_assets.recipe.base import LATER, Part
from instpt_assets.recipe.lora import Lora


class ModelShape(Part):
    """A Mistral-architecture model to train from scratch."""

    hidden_size: int = Field(ge=8)
    """Width d."""
    num_layers: int = Field(ge=1)
    """Transformer blocks."""
    num_heads: int = Field(ge=1)
    """Attention heads."""
    num_kv_heads: int | None = Field(default=None, ge=1)
    """Key-value heads; as many as heads by default."""
    intermediate_size: int = Field(ge=8)
    """Width of the SwiGLU feed-forward."""
    max_position_embeddings: int = Field(default=2048, ge=64)
    """Longest sequence that the model accepts."""
    rope_theta: float = Field(default=10_000.0, gt=0)
    """Base of the rotary embedding."""
    tie_word_embeddings: bool = False
    """Whether the output head shares the embedding's weights."""

    @model_validator(mode="after")
    def _heads(self) -> Self:
        if self.hidden_size % self.num_heads or (self.hidden_size // self.num_heads) % 2:
            raise ValueError(f"hidden_size {self.hidden_size} must be an even multiple of num_heads {self.num_heads}")
        if self.num_heads % (self.num_kv_heads or self.num_heads):
            raise ValueError(f"num_heads {self.num_heads} must be a multiple of num_kv_heads {self.num_kv_heads}")
        return self


def _kind(model: Any) -> str | None:
    return "<name>" if isinstance(model, str) else "<shape>" if isinstance(model, dict | ModelShape) else None


Model = Annotated[
    Annotated[ModelShape, Tag("<shape>")] | Annotated[str, Tag("<name>")],
    Discriminator(
        _kind,
        custom_error_type="model",
        custom_error_message="give a shape (hidden_size, num_layers, …), or the name or folder of a base model",
    ),
]
"""A shape to train from scratch, or a base model by name or folder."""
MODEL_TAGS = ("<shape>", "<name>")
"""What pydantic puts into the place of an error within a `Model`, besides names of fields."""


class Optimization(Part):
    """AdamW (Loshchilov and Hutter 2019) under a schedule of learning rates, counted in tokens."""

    token_budget: int = Field(ge=1)
    """Tokens to train on, all passes together."""
    batch_tokens: int = Field(ge=64)
    """Tokens an optimizer step, over all processes."""
    learning_rate: float = Field(gt=0)
    """Peak learning rate."""
    final_learning_rate_fraction: float = Field(default=0.1, ge=0, le=1)
    """Where the cosine or the decay ends, as a fraction of the peak."""
    warmup_steps: int = Field(default=0, ge=0)
    """Steps of linear warm-up."""
    weight_decay: float = Field(default=0.1, ge=0)
    """Decoupled weight decay, on matrices only."""
    beta1: float = Field(default=0.9, ge=0, lt=1)
    """AdamW's first decay rate."""
    beta2: float = Field(default=0.95, ge=0, lt=1)
    """AdamW's second decay rate."""
    clip_norm: float = Field(default=1.0, gt=0)
    """Largest global gradient norm."""
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """Arithmetic of the forward and backward pass; master weights are float32."""
    schedule: Annotated[Literal["cosine", "warmup_stable_decay", "constant"], LATER] = "cosine"
    """After the warm-up: `cosine` (Loshchilov and Hutter 2017); `warmup_stable_decay` (Hu et al. 2024, MiniCPM), which stays at the peak until the last `decay_fraction` of the steps; or `constant`."""
    decay_fraction: Annotated[float | None, LATER] = Field(default=None, gt=0, le=1)
    """Of `warmup_stable_decay`: share of all steps in which the learning rate decays; 0.1 unless given."""
    decay_shape: Annotated[Literal["linear", "one_minus_sqrt"] | None, LATER] = None
    """Of `warmup_stable_decay`: how it decays; `one_minus_sqrt` (Hägele et al. 2024) unless given."""
    extended_from: Annotated[tuple[PositiveInt, ...], LATER] = ()
    """Earlier token budgets, ascending: the data begins as it did under each of them, so that a training that ended there goes on from its state (with `warmup_stable_decay` and `constant`; a cosine begins anew)."""

    @property
    def num_steps(self) -> int:
        """Optimizer steps: token_budget / batch_tokens, rounded, at least 1."""
        return self.steps_of(self.token_budget)

    @property
    def decay_steps(self) -> int:
        """Of the steps, the last ones in which the learning rate of `warmup_stable_decay` decays; 0 with another schedule."""
        if self.schedule != "warmup_stable_decay":
            return 0
        return max(1, round(self.num_steps * (0.1 if self.decay_fraction is None else self.decay_fraction)))

    @property
    def stable_steps(self) -> int:
        """The first steps whose learning rates do not depend on the token budget."""
        return self.warmup_steps if self.schedule == "cosine" else self.num_steps - self.decay_steps

    def steps_of(self, token_budget: int) -> int:
        """Optimizer steps of a token budget."""
        return max(1, round(token_budget / self.batch_tokens))

    @model_validator(mode="after")
    def _warmup(self) -> Self:
        if self.warmup_steps >= self.num_steps and self.warmup_steps > 0:
            raise ValueError(
                f"warmup_steps {self.warmup_steps} leave nothing of the {self.num_steps} steps that token_budget / batch_tokens gives"
            )
        return self

    @model_validator(mode="after")
    def _schedule(self) -> Self:
        if self.schedule != "warmup_stable_decay":
            for name in ("decay_fraction", "decay_shape"):
                if getattr(self, name) is not None:
                    raise ValueError(f"{name} goes with schedule 'warmup_stable_decay', not '{self.schedule}'")
        elif self.warmup_steps + self.decay_steps > self.num_steps:
            raise ValueError(
                f"decay_fraction: {self.decay_steps} steps of decay and warmup_steps {self.warmup_steps} are more than {self.num_steps}"
            )
        if self.schedule == "constant" and self.final_learning_rate_fraction not in (
            1.0,
            type(self).model_fields["final_learning_rate_fraction"].default,
        ):
            raise ValueError(
                "final_learning_rate_fraction: schedule 'constant' ends at the peak; leave it out, or choose 'warmup_stable_decay'"
            )
        return self

    @model_validator(mode="after")
    def _extension(self) -> Self:
        steps = [self.steps_of(budget) for budget in (*self.extended_from, self.token_budget)]
        if any(following <= step for step, following in pairwise(steps)):
            raise ValueError(
                f"extended_from {list(self.extended_from)} must ascend and end below token_budget {self.token_budget}, each at least a step (batch_tokens) above the one before"
            )
        return self


class TokenizerRecipe(Part):
    """The tokenizer of the pre-trained models."""

    vocab_size: int | None = Field(default=None, ge=300)
    """Train a byte-level BPE of this size on the pinned shards …"""
    pinned_shards: tuple[str, ...] = ()
    """… of `clean_corpus`; a new shard changes nothing."""
    model: str | None = None
    """Or take the tokenizer of this model, for continual pre-training: a folder, or a hub name, best with its commit (`name@commit`)."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.model is None) == (self.vocab_size is None):
            raise ValueError("give either vocab_size with pinned_shards (train one) or model (take its tokenizer)")
        if (self.vocab_size is None) != (not self.pinned_shards):
            raise ValueError("vocab_size and pinned_shards go together")
        return self


class Pretraining(Part):
    """What all arms share: the model and its training; so their token budgets are equal."""

    model: Model
    """A shape to train from scratch, or a base model to continue from: a folder, or a hub name, best with its commit (`name@commit`)."""
    sequence_length: int = Field(default=2048, ge=64)
    """Tokens a packed training sequence."""
    optimization: Optimization
    """Steps and optimizer."""
    checkpoint_steps: Annotated[tuple[PositiveInt, ...], LATER] = ()
    """Steps, ascending, after which a checkpoint is kept and scored beside the last."""
    packing: Annotated[Literal["concatenate", "best_fit"], LATER] = "concatenate"
    """How documents become sequences: one behind the other, cut where a sequence ends (the paper's); or packed so that only those longer than a sequence are cut, and the room that is left is padding."""
    document_attention: Annotated[bool, LATER] = False
    """Whether a token sees its own document only, and positions start anew in each; else whatever stands before it in the sequence."""
    held_out_documents: Annotated[int, LATER] = Field(default=0, ge=0)
    """So many raw documents, chosen by hash of their ids, the same in all arms that take the same shards, that an arm is not trained on; the loss on them is followed during the training."""
    held_out_every_steps: Annotated[int | None, LATER] = Field(default=None, ge=1)
    """Steps from one such loss to the next; by default about twenty times in a training, and so seldom that they take about a twentieth of it at most. After the last step it is always computed."""
    lora: Annotated[Lora | None, LATER] = None
    """Train adapters on the base model in place of all its weights."""

    @model_validator(mode="after")
    def _checkpoint_steps(self) -> Self:
        _check_steps(self.checkpoint_steps, self.optimization)
        return self

    @model_validator(mode="after")
    def _held_out(self) -> Self:
        if self.held_out_every_steps is not None and not self.held_out_documents:
            raise ValueError("held_out_every_steps is given, but held_out_documents is 0: there is no held-out loss to compute")
        return self

    @model_validator(mode="after")
    def _adapted(self) -> Self:
        check_adapted(self.lora, self.model)
        return self


def check_adapted(lora: Lora | None, model: ModelShape | str) -> None:
    """Refuse adapters on a model from scratch, of which nothing but noise would stay."""
    if lora is not None and isinstance(model, ModelShape):
        raise ValueError(
            "lora adapts a base model, but model is a shape that is trained from scratch: name a base model, or leave lora out"
        )


def _check_steps(steps: tuple[int, ...], optimization: Optimization) -> None:
    last = optimization.num_steps
    if any(following <= step for step, following in pairwise((*steps, last))):
        raise ValueError(f"checkpoint_steps {list(steps)} must ascend and end before the last step, {last} (token_budget / batch_tokens)")


class InstructionTuning(Part):
    """Instruction tuning after pre-training; loss on responses only."""

    sequence_length: int = Field(default=2048, ge=64)
    """Tokens a training sequence."""
    optimization: Optimization
    """Steps and optimizer."""
    document_attention: Annotated[bool, LATER] = False
    """Whether a token sees its own example only, and positions start anew in each; else the examples before it in the sequence too."""
    components: Annotated[tuple[Literal["general", "tuning_pairs"], ...] | None, LATER] = Field(default=None, min_length=1)
    """Which instructions: the recipe's `general_instructions`, or the pairs of the tuning collection, each behind its context; by default the general ones, and the pairs only where the recipe has none."""
    checkpoint_steps: Annotated[tuple[PositiveInt, ...], LATER] = ()
    """Steps, ascending, after which a checkpoint is kept and scored beside the last: the report then draws the scores over the steps, from the pre-trained model at step 0 on."""
    lora: Annotated[Lora | None, LATER] = None
    """Train adapters on the pre-trained model in place of all its weights."""

    @model_validator(mode="after")
    def _checkpoint_steps(self) -> Self:
        _check_steps(self.checkpoint_steps, self.optimization)
        return self
