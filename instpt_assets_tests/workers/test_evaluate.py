"""The evaluation worker keeps to the release of lm-eval that the scores' identity names."""

from importlib.metadata import version
from pathlib import Path

import pytest

from instpt_assets.recipe.evaluation import Evaluation
from instpt_assets.recipe.execution import Execution
from instpt_assets.store.manifest import Spec
from instpt_assets.workers import evaluate


def test_another_release_than_planned_is_refused(tmp_path: Path) -> None:
    recipe = {"evaluation": Evaluation(held_out="pydoc://topics").hashed(), "lm_eval": "0.0.1"}
    spec = Spec(asset="vanilla/eval_scores", partition="seed-0", code_version=1, recipe=recipe, inputs=())
    with pytest.raises(ValueError, match=f"planned for lm-eval 0.0.1, but this worker has {version('lm-eval')}"):
        evaluate.make(spec, {}, Execution(), tmp_path, print)
