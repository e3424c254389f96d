"""Worker of `synthesizer_quality`: the synthesizer on held-out contexts of the tuning collection."""

import os
from pathlib import Path
from typing import Any

from instpt_assets.evaluation.synthesizer_quality import judge_synthesizer
from instpt_assets.recipe.execution import Execution
from instpt_assets.store.making import Inputs
from instpt_assets.store.manifest import Spec
from instpt_assets.workers.runtime import Report, run_worker


def make(spec: Spec, inputs: Inputs, execution: Execution, out: Path, progress: Report) -> dict[str, Any]:
    """Judge the last checkpoint."""
    import torch

    torch.set_num_threads(execution.num_threads or len(os.sched_getaffinity(0)))
    return judge_synthesizer(
        inputs["instruction_synthesizer", spec.partition].local() / "checkpoint",
        inputs["tuning_collection", spec.partition].tables(),
        out=out,
        device=execution.device,
        batch_size=execution.evaluation.batch_size,
        progress=progress,
    )


if __name__ == "__main__":
    run_worker(make)
