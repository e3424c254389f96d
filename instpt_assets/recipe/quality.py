"""Recipe of `corpus_quality`: how many texts are looked at closely, and the model that judges them, if any."""

from typing import Literal, Self

from pydantic import Field, model_validator

from instpt_assets.recipe.base import Part
from instpt_assets.recipe.synthesis import Dtype
from instpt_assets.recipe.writers import ChatWriter, ServerWriter

INSTRUCTIONS = (
    "You judge training data for language models. You are given a passage, an instruction about it, and a response. Decide two things. "
    "relevant: the instruction is about the passage, and the passage is needed or helpful to follow it. accurate: the response follows the "
    "instruction and is correct by what the passage says; a response that the passage contradicts or does not bear out is not accurate."
)
"""What a judge is told, unless a recipe says otherwise."""


class Judge(Part):
    """An instruction-tuned model that says of pairs whether they are relevant to their passage, and whether their response is accurate."""

    kind: Literal["chat", "server"] = "chat"
    """`chat`: a model that is run here, by vLLM; `server`: one behind the OpenAI-compatible servers that the execution profile names (`synthesis.servers`)."""
    model: str = Field(min_length=1)
    """A model with a chat template: a folder, or a hub name, best with its commit (`name@commit`). For `server`: the name under which it is served, which stands for the model in identities."""
    tokenizer: str | None = Field(default=None, min_length=1)
    """For `server`: a folder or hub name with the model's `tokenizer.json`; without, a token counts as three bytes of UTF-8."""
    instructions: str = Field(default=INSTRUCTIONS, min_length=1)
    """What the model is told to decide; the form of its answer is told behind it, and binds it."""
    max_model_len: int = Field(default=4096, ge=256)
    """Window in tokens. A pair whose passage does not fit is not judged, and counted."""
    dtype: Dtype = "bfloat16"
    """Arithmetic of the model's weights and activations."""
    quantization: str | None = Field(default=None, min_length=1)
    """How vLLM quantizes the weights when it loads them, by vLLM's name; none by default."""

    @property
    def writer(self) -> ChatWriter | ServerWriter:
        """The judge as what writers are: a model that is asked in a conversation."""
        if self.kind == "chat":
            return ChatWriter(kind="chat", model=self.model, instructions=self.instructions)
        return ServerWriter(kind="server", model=self.model, tokenizer=self.tokenizer, instructions=self.instructions)

    @model_validator(mode="after")
    def _tokenizer(self) -> Self:
        if self.kind == "chat" and self.tokenizer is not None:
            raise ValueError("tokenizer: for kind server; a model that is run here brings its own")
        return self


class CorpusQuality(Part):
    """How a pair set's quality is measured."""

    num_texts: int = Field(default=500, ge=1, le=100_000)
    """Augmented texts, drawn by hash of their ids, whose pairs are sorted into categories and shown to the judge (the paper: 500)."""
    seed: int = 0
    """Seed of all samples."""
    judge: Judge | None = None
    """A model that judges the pairs of these texts; none by default: the lexical measures need no model."""
