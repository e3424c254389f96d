"""That a model is trained on tokens of its own tokenizer, looked at before anything is loaded."""

from collections.abc import Iterable
from pathlib import Path

from instpt_assets.store.store import Artifact
from instpt_assets.training.base_models import BaseModel, find_base_model
from instpt_assets.training.same_tokenizer import TOKENIZER, OtherTokenizer, check_same_tokenizer


def check_base_model(model: BaseModel, tokenizer: Artifact) -> None:
    """Compare the recipe's tokenizer with the base model's own.

    Raises:
        OtherTokenizer: see `check_same_tokenizer`.
        BaseModelError: the base model has no tokenizer.json.
    """
    check_same_tokenizer(_folder(tokenizer), find_base_model(model.url, [TOKENIZER]).folder(), name=model.name)


def check_checkpoint(checkpoint: Path, tokenizer: Artifact, *, name: str) -> None:
    """Compare the recipe's tokenizer with that of a checkpoint.

    Raises:
        OtherTokenizer: see `check_same_tokenizer`.
    """
    check_same_tokenizer(_folder(tokenizer), checkpoint, name=name)


def check_tokens(tokens: Iterable[Artifact], tokenizer: Artifact) -> None:
    """Compare what tokenized artifacts were made with.

    Raises:
        OtherTokenizer: one was made with another tokenizer.
    """
    for manifest in (artifact.manifest for artifact in tokens):
        made_with = [i.digest for i in manifest.inputs if i.asset == "tokenizer"]
        if made_with != [tokenizer.manifest.digest]:
            raise OtherTokenizer(
                f"{manifest.asset}/{manifest.partition} was tokenized with another tokenizer than the recipe's: materialize it again, "
                "and the mixtures that take it"
            )


def _folder(tokenizer: Artifact) -> Path:
    return tokenizer.local() / "tokenizer"
