"""A task that lm-eval lacks stops the training that it would score, before it starts."""

from pathlib import Path

import dagster as dg
import pytest
from light_project import LightProject, failure

from instpt_assets.defs.task_names import check_task_names
from instpt_assets.recipe.evaluation import Evaluation, HarnessTask

TASKS = {"harness_tasks": [{"task": "arc_eazy"}]}


def test_no_model_is_trained_for_a_task_that_does_not_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(evaluation: Evaluation) -> None:
        raise dg.Failure(f"no task '{evaluation.harness_tasks[0].task}'")

    monkeypatch.setattr("instpt_assets.defs.arms.check_task_names", refuse)
    light = LightProject(tmp_path, evaluation=TASKS)
    assert failure(light.run("seeds", "vanilla/pretrained_checkpoint", tags={"dagster/partition": "seed-0"})) == "no task 'arc_eazy'"


@pytest.mark.slow  # lm-eval reads its thousands of task files
def test_lm_eval_itself_is_asked() -> None:
    check_task_names(Evaluation(harness_tasks=(HarnessTask(task="arc_easy"), HarnessTask(task="mmlu", num_fewshot=5))))
    with pytest.raises(dg.Failure) as refused:
        check_task_names(Evaluation.model_validate(TASKS, strict=False))
    assert "has no task 'arc_eazy'; did you mean arc_easy" in str(refused.value.description)


def test_without_tasks_of_lm_eval_nothing_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("subprocess.run", lambda *_, **__: pytest.fail("a process was started"))
    check_task_names(Evaluation(held_out="pydoc://topics"))
