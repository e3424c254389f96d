"""Worker of `<arm>/instruction_tuned_checkpoint`: a pre-trained model tuned on single instructions, loss on the responses."""

import json
from pathlib import Path
from typing import Any

from instpt_assets.recipe.execution import Execution
from instpt_assets.recipe.training import InstructionTuning
from instpt_assets.store.making import Inputs
from instpt_assets.store.manifest import Spec
from instpt_assets.workers.cards import model_card
from instpt_assets.workers.runtime import Report
from instpt_assets.workers.tokenizers import check_checkpoint, check_tokens
from instpt_assets.workers.training import run_training_worker, seed_number, state_folder, state_url


def make(spec: Spec, inputs: Inputs, execution: Execution, out: Path, progress: Report) -> dict[str, Any]:
    """Tune the model of one arm and seed: on the general instructions, or, where there are none, on the tuning set's pairs."""
    from instpt_assets.mixture.instructions import GENERAL, TUNING_PAIRS
    from instpt_assets.training.job import InstructionData, TrainingJob
    from instpt_assets.training.launch import run

    tuning = InstructionTuning.model_validate_json(json.dumps(spec.recipe["instruction_tuning"]))
    arm = spec.asset.partition("/")[0]
    instructions = inputs["tokenized_instructions", "all"]
    has_general = instructions.manifest.statistics["components"][GENERAL]["num_rows"] > 0
    checkpoint = inputs[f"{arm}/pretrained_checkpoint", spec.partition].local() / "checkpoint"
    check_checkpoint(checkpoint, inputs["tokenizer", "all"], name=f"{arm}/pretrained_checkpoint")
    check_tokens([instructions], inputs["tokenizer", "all"])
    job = TrainingJob(
        model=str(checkpoint),
        seed=seed_number(spec),
        tokenizer=inputs["tokenizer", "all"].local() / "tokenizer",
        data=InstructionData(folder=instructions.local(), components=(GENERAL if has_general else TUNING_PAIRS,)),
        sequence_length=tuning.sequence_length,
        optimization=tuning.optimization,
        execution=execution,
        card=model_card(spec, inputs, "instruction_tuned"),
        out=out,
        state_folder=state_folder(spec, inputs),
        state_url=state_url(spec, inputs),
    )
    return run(job, progress)


if __name__ == "__main__":
    run_training_worker(make)
