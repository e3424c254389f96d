"""Worker of `<arm>/instruction_tuned_checkpoint`: a pre-trained model tuned on single instructions, loss on the responses."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instpt_assets.recipe.execution import Execution
from instpt_assets.recipe.training import InstructionTuning
from instpt_assets.store.making import Inputs
from instpt_assets.store.manifest import Spec
from instpt_assets.workers.cards import model_card
from instpt_assets.workers.runtime import Report
from instpt_assets.workers.tokenizers import check_checkpoint, check_tokens
from instpt_assets.workers.training import run_training_worker, seed_number, state_folder, state_url

if TYPE_CHECKING:
    from instpt_assets.training.job import TrainingJob


def make(spec: Spec, inputs: Inputs, execution: Execution, out: Path, progress: Report) -> dict[str, Any]:
    """Tune the model of one arm and seed."""
    from instpt_assets.training.launch import run

    return run(training_job(spec, inputs, execution, out), progress)


def training_job(spec: Spec, inputs: Inputs, execution: Execution, out: Path) -> "TrainingJob":
    """The tuning of one arm and seed: on the instructions that the recipe names, else the general ones, or, where there are none, the tuning set's pairs.

    Raises:
        OtherTokenizer: the recipe's tokenizer is not the pre-trained model's, or not that of the instructions.
    """
    from instpt_assets.mixture.instructions import GENERAL, TUNING_PAIRS
    from instpt_assets.training.job import InstructionData, TrainingJob

    tuning = InstructionTuning.model_validate_json(json.dumps(spec.recipe["instruction_tuning"]))
    arm = spec.asset.partition("/")[0]
    instructions = inputs["tokenized_instructions", "all"]
    has_general = instructions.manifest.statistics["components"][GENERAL]["num_rows"] > 0
    components = tuning.components or (GENERAL if has_general else TUNING_PAIRS,)
    checkpoint = inputs[f"{arm}/pretrained_checkpoint", spec.partition].local() / "checkpoint"
    check_checkpoint(checkpoint, inputs["tokenizer", "all"], name=f"{arm}/pretrained_checkpoint")
    check_tokens([instructions], inputs["tokenizer", "all"])
    return TrainingJob(
        model=str(checkpoint),
        lora=tuning.lora,
        seed=seed_number(spec),
        tokenizer=inputs["tokenizer", "all"].local() / "tokenizer",
        data=InstructionData(folder=instructions.local(), components=components, document_attention=tuning.document_attention),
        sequence_length=tuning.sequence_length,
        optimization=tuning.optimization,
        checkpoint_steps=tuning.checkpoint_steps,
        execution=execution,
        card=model_card(spec, inputs, "instruction_tuned"),
        out=out,
        state_folder=state_folder(spec, inputs),
        state_url=state_url(spec, inputs),
    )


if __name__ == "__main__":
    run_training_worker(make)
