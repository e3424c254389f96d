"""Worker of `<arm>/eval_scores` and `<arm>/instruction_tuned_eval_scores`: the checkpoints of one arm and seed, scored."""

import functools
import json
import os
import re
import tempfile
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from instpt_assets.evaluation.harness import PreparedTasks, evaluate_checkpoint, prepare
from instpt_assets.evaluation.scores import not_finite, write_scores
from instpt_assets.recipe.evaluation import Evaluation
from instpt_assets.recipe.execution import Execution
from instpt_assets.store.making import Inputs
from instpt_assets.store.manifest import Spec
from instpt_assets.workers.runtime import Report, run_worker


def make(spec: Spec, inputs: Inputs, execution: Execution, out: Path, progress: Report) -> dict[str, Any]:
    """Score every checkpoint of the artifact, the intermediate ones in order, then the last; what has no finite value is listed as `left_out`."""
    planned, here = spec.recipe["lm_eval"], version("lm-eval")
    if planned != here:
        raise ValueError(f"planned for lm-eval {planned}, but this worker has {here}: install the same release where it runs")
    # Before torch: it sets what libraries read when they are imported.
    tasks = _prepared(json.dumps(spec.recipe["evaluation"], sort_keys=True))

    import torch

    torch.set_num_threads(execution.num_threads or len(os.sched_getaffinity(0)))
    arm, _, stage = spec.asset.partition("/")
    trained = "instruction_tuned_checkpoint" if stage.startswith("instruction_tuned") else "pretrained_checkpoint"
    artifact = inputs[f"{arm}/{trained}", spec.partition]
    folder = artifact.local()
    found = []
    for name, step in _checkpoints(folder, artifact.manifest.statistics):

        def tell(message: Mapping[str, Any], name: str = name) -> None:
            progress({"checkpoint": name, **message})

        batch_size = execution.evaluation.batch_size
        scores = evaluate_checkpoint(folder / name, tasks, batch_size=batch_size, device=execution.device, progress=tell)
        found.append((f"{trained}/{name}", step, scores))
    rows = write_scores(found, arm=arm, seed=int(spec.partition.removeprefix("seed-")), out=out)
    last, left_out = found[-1][2], not_finite(found)
    return {
        "num_rows": rows,
        "checkpoints": len(found),
        "examples": sum(len(scores.examples) for _, _, scores in found),
        "scores": {f"{score.task}/{score.metric}": round(score.value, 4) for score in last.scores},
        **({"left_out": left_out} if left_out else {}),
    }


def _checkpoints(folder: Path, statistics: Mapping[str, Any]) -> list[tuple[str, int | None]]:
    between = sorted(int(match[1]) for path in folder.iterdir() if (match := re.fullmatch(r"checkpoint-(\d+)", path.name)))
    steps = statistics.get("steps")
    # The last step may have been kept under its number too.
    return [*((f"checkpoint-{step}", step) for step in between if step != steps), ("checkpoint", steps)]


@functools.lru_cache(maxsize=1)
def _prepared(recipe: str) -> PreparedTasks:
    folder = tempfile.TemporaryDirectory(prefix="instpt-tasks-")
    _FOLDERS.append(folder)
    return prepare(Evaluation.model_validate_json(recipe), Path(folder.name))


_FOLDERS: list[tempfile.TemporaryDirectory[str]] = []  # task files live as long as the process scores checkpoints


if __name__ == "__main__":
    run_worker(make)
