"""The model that a pair set's writer brings with it: which field of the writer names it, and which of its files count."""

from typing import NamedTuple

from instpt_assets.mixture.tokenizer import FILES as TOKENIZER_FILES
from instpt_assets.recipe.writers import ChatWriter, ImportedWriter, RuleBasedWriter, ServerWriter, SynthesizerWriter, Writer
from instpt_assets.training.base_models import WEIGHT_FILES

CHAT_TEMPLATE = "chat_template.jinja"
"""Where a model's chat template lies, if it is not part of `tokenizer_config.json`."""


class WriterModel(NamedTuple):
    """A folder or a model of the hub, as `find_base_model` takes it."""

    field: str
    """The writer's field that names it."""
    patterns: tuple[str, ...]
    """Of the files that count."""


def writer_model(writer: Writer) -> WriterModel | None:
    """What the writer reads from a model of its own; None if it has none (no model at all, or the synthesizer that the recipe tunes)."""
    match writer:
        case SynthesizerWriter(model=str()):
            return WriterModel("model", (*WEIGHT_FILES, *TOKENIZER_FILES))
        case ChatWriter():
            return WriterModel("model", (*WEIGHT_FILES, *TOKENIZER_FILES, CHAT_TEMPLATE))
        case ServerWriter(tokenizer=str()):
            return WriterModel("tokenizer", TOKENIZER_FILES)
        case SynthesizerWriter() | ServerWriter() | ImportedWriter() | RuleBasedWriter():
            return None
