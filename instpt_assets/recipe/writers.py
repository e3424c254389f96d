"""Recipe of a pair set's writer: what writes the instruction-response pairs about a passage."""

from typing import Annotated, Literal, Self, get_args

from pydantic import Field, model_validator

from instpt_assets.recipe.base import Part

# Part of every identity of pairs that a chat model writes, so that another text needs no higher version; chat.ANSWER_FORMAT, told behind it,
# is in none: another one needs CODE_VERSIONS["instruction_pairs"] (defs/plan.py) and _VERSION in chains.py raised.
INSTRUCTIONS = (
    "You write training data for language models. Read the passage and write up to {max_pairs} varied instructions or questions that can be "
    "answered from the passage alone, each with its complete and correct response. Vary their kind: questions of fact, reasoning, summaries, "
    "multiple choice (give the options), completions, true or false. Write in the language of the passage."
)
"""What a chat model is told, unless a recipe says otherwise; `{max_pairs}` stands for the field of that name."""


class SynthesizerWriter(Part):
    """A tuned instruction synthesizer in the native format (PAPER.md section 1)."""

    kind: Literal["synthesizer"] = "synthesizer"
    """Says that it is one."""
    model: str | None = Field(default=None, min_length=1)
    """A synthesizer that is there already: a folder, or a hub name (`instruction-pretrain/instruction-synthesizer` is the released one, best with its commit: `name@commit`); by default the one that the recipe's section `synthesizer` tunes."""


class ChatWriter(Part):
    """Any instruction-tuned model, asked through its chat template; its answers are bound to a JSON schema."""

    kind: Literal["chat"]
    """Says that it is one."""
    model: str = Field(min_length=1)
    """A model with a chat template: a folder, or a hub name, best with its commit: `name@commit`."""
    max_pairs: int = Field(default=5, ge=1, le=50)
    """Pairs a passage at most."""
    instructions: str = Field(default=INSTRUCTIONS, min_length=1)
    """What the model is told to do; `{max_pairs}` stands for that field."""


class ServerWriter(Part):
    """A model behind running OpenAI-compatible servers; the execution profile says where they are (`synthesis.servers`)."""

    kind: Literal["server"]
    """Says that it is one."""
    model: str = Field(min_length=1)
    """The name under which the servers serve it. It stands for the model in identities: give another model another name."""
    format: Literal["chat", "native"] = "chat"
    """`chat`: through the server's chat template, answers bound to a JSON schema; `native`: a tuned synthesizer's own format."""
    tokenizer: str | None = Field(default=None, min_length=1)
    """A folder or hub name with the model's `tokenizer.json`. With `chat` it may be left out: a passage then counts a token for every three bytes of UTF-8."""
    max_pairs: int = Field(default=5, ge=1, le=50)
    """Pairs a passage at most; for `chat`."""
    instructions: str = Field(default=INSTRUCTIONS, min_length=1)
    """What the model is told to do; for `chat`."""

    @model_validator(mode="after")
    def _native(self) -> Self:
        if self.format == "native":
            if self.tokenizer is None:
                raise ValueError("tokenizer must name the synthesizer's tokenizer where format is native: prompts are sent as token ids")
            given = sorted(self.model_fields_set & {"max_pairs", "instructions"})
            if given:
                raise ValueError(f"{' and '.join(given)}: for format chat; a synthesizer's native format has no such setting")
        return self


class ImportedWriter(Part):
    """No model: pairs that a corpus brings with it, each document being a context and its pairs."""

    kind: Literal["imported"]
    """Says that it is one."""
    pairs_field: str = Field(default="pairs", min_length=1)
    """The field of the source's records that lists a document's pairs, each with `instruction` (or `question`, `Q`), `response` (`answer`, `A`) and, optionally, `options` and `reasoning` (`rationale`). The published instruction-augmented corpora have `QA_list`; their corpus needs `format: jsonl` and `text_field: context`."""


RuleTask = Literal["inference", "cause_and_effect", "paraphrase", "summarization", "word_to_text", "completion"]
"""A kind of task that rules find in English prose."""


class RuleBasedWriter(Part):
    """No model: pairs mined from English passages by rules over connectives, titles and sentences (PAPER.md section 7)."""

    kind: Literal["rule_based"]
    """Says that it is one."""
    tasks: tuple[RuleTask, ...] = Field(default=get_args(RuleTask), min_length=1)
    """The kinds of tasks: how two statements are related, reasons and results, rewordings and definitions, titles and conclusions, a sentence from some of its words, how a text goes on."""
    max_pairs: int = Field(default=5, ge=1, le=50)
    """Pairs a passage at most."""
    max_pairs_per_task: int = Field(default=2, ge=1, le=50)
    """Pairs of one kind of task a passage at most."""
    seed: int = 0
    """Seed of all draws: which sentences, and in which phrasings."""

    @model_validator(mode="after")
    def _tasks(self) -> Self:
        if len(set(self.tasks)) != len(self.tasks):
            raise ValueError("tasks names a task twice")
        return self


Writer = Annotated[SynthesizerWriter | ChatWriter | ServerWriter | ImportedWriter | RuleBasedWriter, Field(discriminator="kind")]
"""One of the ways of writing pairs; `kind` says which."""

ModelFreeWriter = ImportedWriter | RuleBasedWriter
"""Those that generate nothing: their pairs are made in the asset's own process."""
