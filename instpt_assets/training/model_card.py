"""The model card (`README.md`) of a checkpoint: what it is, what it was made from and by which recipe, how its training went, how to load it.

It holds no times and no paths of a machine: a repeated training gives the same card, byte for byte.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from instpt_assets.recipe.base import Part
from instpt_assets.training.log import LogLine

CARD = "README.md"
_MAX_INPUTS = 50
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_HUB_DATASET = re.compile(r"hf://datasets/([\w.-]+/[\w.-]+)")


class CardComponent(Part):
    """A component of a mixture."""

    name: str
    """As the recipe names it."""
    num_documents: int
    """Drawn, repeated ones each time."""
    num_tokens: int
    """Drawn."""
    share: float
    """Of the mixture's tokens."""
    repetition: float
    """Passes over what there is."""


class CardCorpus(Part):
    """A corpus or data set that texts came from."""

    name: str
    """As the recipe names it."""
    source: str
    """Its URL; of a local path the last part."""
    license: str | None = None
    """Where the recipe names one for all documents."""


class Card(Part):
    """What a card tells that the training itself does not know."""

    name: str
    """The training's name: `vanilla seed-0`."""
    kind: Literal["pretrained", "instruction_tuned", "synthesizer"]
    """What the model is."""
    asset: str
    """The checkpoint's asset key as a path."""
    partition: str
    """Its partition key, or `all`."""
    identity: str
    """Its identity in the store."""
    recipe: dict[str, Any]
    """The parts of the recipe that it and all that it comes from were made by, by asset."""
    base_model: str | None = None
    """Its base model's name on the hub or folder's name; None: from scratch."""
    components: tuple[CardComponent, ...] = ()
    """Of its mixture."""
    corpora: tuple[CardCorpus, ...] = ()
    """Where the texts came from."""
    languages: tuple[str, ...] = ()
    """That the cleaning kept, as ISO 639-1 codes; empty: it kept all."""
    made_from: tuple[tuple[str, str, str], ...] = ()
    """Asset, partition and digest of everything that went in, a mixture's tokens included."""


def write_cards(card: Card, lines: Sequence[LogLine], folder: Path, *, num_parameters: int) -> None:
    """Write the card of each checkpoint in the folder: `checkpoint/` and `checkpoint-<step>/`.

    Args:
        card: what they share.
        lines: the training's log.
        folder: the training's.
        num_parameters: of the model.
    """
    for checkpoint in sorted(folder.glob("checkpoint*")):
        step = int(checkpoint.name.partition("-")[2] or lines[-1].step)
        done = [line for line in lines if line.step <= step]
        text = render_card(card, done, checkpoint, num_steps=lines[-1].step, num_parameters=num_parameters)
        (checkpoint / CARD).write_text(text, encoding="utf-8")


def render_card(card: Card, lines: Sequence[LogLine], checkpoint: Path, *, num_steps: int, num_parameters: int) -> str:
    """The card of one checkpoint, as Markdown with YAML in front.

    Args:
        card: what it tells beside the training's figures.
        lines: the log up to the checkpoint's step.
        checkpoint: its folder, of which the configuration is read.
        num_steps: of the whole training.
        num_parameters: of the model.
    """
    import yaml
    from jinja2 import Environment, FileSystemLoader

    def in_yaml(value: Any) -> str:
        text: str = yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=120)
        return text.rstrip()

    config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), trim_blocks=True, lstrip_blocks=True)  # noqa: S701 (Markdown)
    return environment.get_template("model_card.md.j2").render(
        front=in_yaml(_front(card)),
        card=card,
        line=lines[-1],
        first=lines[0],
        held_out=next((line for line in reversed(lines) if line.held_out_loss is not None), None),
        loss_tokens=sum(line.loss_tokens for line in lines),
        num_steps=num_steps,
        num_parameters=num_parameters,
        architecture=(config.get("architectures") or [config["model_type"]])[0],
        adapter=(checkpoint / "adapter").is_dir(),
        recipe=in_yaml(card.recipe),
        count=_count,
        max_inputs=_MAX_INPUTS,
    )


def _front(card: Card) -> dict[str, Any]:
    """What the hub reads of a card."""
    datasets = sorted({match[1] for corpus in card.corpora if (match := _HUB_DATASET.match(corpus.source))})
    base_model = card.base_model.partition("@")[0] if card.base_model else ""
    tags = {"pretrained": "pre-training", "instruction_tuned": "instruction-tuning", "synthesizer": "instruction-synthesizer"}
    return {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        **({"base_model": base_model} if _HUB_NAME.fullmatch(base_model) else {}),
        **({"language": list(card.languages)} if card.languages else {}),
        **({"datasets": datasets} if datasets else {}),
        "tags": ["instruction-pretraining", tags[card.kind]],
    }


def _count(number: int) -> str:
    """`1.3 billion`, `512 million`, `12,345`."""
    for unit, name in ((10**12, "trillion"), (10**9, "billion"), (10**6, "million")):
        if number >= unit:
            return f"{number / unit:.3g} {name}"
    return f"{number:,}"
