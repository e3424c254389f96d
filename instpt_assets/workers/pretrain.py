"""Worker of `<arm>/pretrained_checkpoint`: one model per arm and seed, trained on the arm's mixture."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instpt_assets.mixture.index import MixtureIndex
from instpt_assets.recipe.execution import Execution
from instpt_assets.recipe.training import Pretraining
from instpt_assets.store.making import Inputs
from instpt_assets.store.manifest import SOURCE, Spec
from instpt_assets.store.store import resolve
from instpt_assets.training.base_models import WEIGHT_FILES, planned_base_model
from instpt_assets.workers.cards import model_card
from instpt_assets.workers.runtime import Report
from instpt_assets.workers.tokenizers import check_base_model, check_tokens
from instpt_assets.workers.training import ancestors_places, run_training_worker, seed_number, state_folder, state_url

if TYPE_CHECKING:
    from instpt_assets.training.job import TrainingJob


def make(spec: Spec, inputs: Inputs, execution: Execution, out: Path, progress: Report) -> dict[str, Any]:
    """Pre-train the model of one arm and seed."""
    from instpt_assets.training.launch import run

    return run(training_job(spec, inputs, execution, out), progress)


def training_job(spec: Spec, inputs: Inputs, execution: Execution, out: Path) -> "TrainingJob":
    """The training of one arm and seed.

    Raises:
        OtherTokenizer: the recipe's tokenizer is not the base model's, or not that of the tokens.
    """
    from instpt_assets.training.job import Ancestors, MixtureData, TrainingJob

    pretraining = Pretraining.model_validate_json(json.dumps(spec.recipe["pretraining"]))
    model, base_model = pretraining.model, None
    if isinstance(model, str):
        base_model = planned_base_model(spec, WEIGHT_FILES)
        check_base_model(base_model, inputs["tokenizer", "all"])
        model = str(base_model.folder())
    arm = spec.asset.partition("/")[0]
    mixture = inputs[f"{arm}/tokenized_mixture", spec.partition]
    # The mixture copies no token: it names the tokenized artifacts that hold its documents.
    named = set(MixtureIndex(mixture.local()).sources)
    tokens = resolve(mixture.store, [item for item in mixture.manifest.inputs if (item.asset, item.partition) in named])
    check_tokens(tokens.values(), inputs["tokenizer", "all"])
    folders = mixture.store.each(lambda source: tokens[source].local(), sorted(tokens))
    folder, url = ancestors_places(inputs)
    return TrainingJob(
        model=model,
        lora=pretraining.lora,
        seed=seed_number(spec),
        tokenizer=inputs["tokenizer", "all"].local() / "tokenizer",
        data=MixtureData(
            folder=mixture.local(),
            sources=tuple((asset, key, folder) for (asset, key), folder in zip(sorted(tokens), folders, strict=True)),
        ),
        sequence_length=pretraining.sequence_length,
        optimization=pretraining.optimization,
        checkpoint_steps=pretraining.checkpoint_steps,
        held_out_every_steps=pretraining.held_out_every_steps,
        execution=execution,
        card=model_card(spec, inputs, "pretrained", base_model=base_model, mixture=mixture),
        out=out,
        state_folder=state_folder(spec, inputs),
        state_url=state_url(spec, inputs),
        ancestors=Ancestors(
            folder=folder,
            url=url,
            made_of={
                "tokenizer": inputs["tokenizer", "all"].manifest.digest,
                "base_models": " ".join(sorted(item.digest for item in spec.inputs if item.asset.startswith(SOURCE))),
                "code_version": str(spec.code_version),
            },
            source_digests=tuple((asset, key, artifact.manifest.digest) for (asset, key), artifact in sorted(tokens.items())),
        ),
    )


if __name__ == "__main__":
    run_training_worker(make)
