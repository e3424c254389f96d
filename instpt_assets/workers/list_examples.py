"""Worker of `evaluation_examples`: the exact examples that the recipe evaluates on, and the index that texts are compared with."""

import json
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

from instpt_assets.corpus.shards import check_sources
from instpt_assets.evaluation.examples import write_examples
from instpt_assets.recipe.decontamination import Decontamination
from instpt_assets.recipe.evaluation import Evaluation
from instpt_assets.recipe.execution import Execution
from instpt_assets.store.making import Inputs
from instpt_assets.store.manifest import SOURCE, Spec
from instpt_assets.workers.runtime import Report, run_worker


def make(spec: Spec, _inputs: Inputs, _execution: Execution, out: Path, progress: Report) -> dict[str, Any]:
    """List the examples and write the index."""
    planned, here = spec.recipe["lm_eval"], version("lm-eval")
    if planned != here:
        raise ValueError(f"planned for lm-eval {planned}, but this worker has {here}: install the same release where it runs")
    evaluation = Evaluation.model_validate_json(json.dumps(spec.recipe["evaluation"]))
    decontamination = Decontamination.model_validate_json(json.dumps(spec.recipe["decontamination"]))
    with tempfile.TemporaryDirectory(prefix="instpt-tasks-") as folder:
        statistics = write_examples(evaluation, decontamination, out=out, folder=Path(folder), progress=progress)
    check_sources(
        {i.asset.removeprefix(SOURCE): i.digest for i in spec.inputs if i.asset.startswith(SOURCE)},
        {source.source: source.format for source in decontamination.sources.values()},
    )
    return statistics


if __name__ == "__main__":
    run_worker(make, shared=True)
