"""Which of the recipe's fields the identities of a stage follow."""

from pathlib import Path
from typing import Any

import pytest
from light_project import LightProject

from instpt_assets.defs.plan import Plan
from instpt_assets.recipe.evaluation import Evaluation, HarnessTask
from instpt_assets.recipe.recipe import Recipe
from instpt_assets.store.manifest import Spec


class Alone(Plan):
    """The plan with no inputs: what is left is the recipe's part."""

    def _inputs(self, *_: Any) -> list[Any]:
        return []


@pytest.fixture
def light(tmp_path: Path) -> LightProject:
    return LightProject(tmp_path)


def spec(light: LightProject, asset: str, partition: str, **changes: Any) -> Spec:
    recipe: Recipe = light.project.recipe.model_copy(update=changes)
    return Alone(recipe, light.project.store).spec(asset, partition)


def test_signatures_do_not_follow_what_they_are_compared_by(light: LightProject) -> None:
    deduplication = light.project.recipe.deduplication
    same, threshold, exact, *others = (
        spec(light, "document_signatures", "notes--a", deduplication=deduplication.model_copy(update=change)).identity
        for change in ({}, {"threshold": 0.5}, {"exact": False}, {"seed": 9}, {"shingle_words": 3}, {"near": False})
    )
    assert same == threshold == exact
    assert len({same, *others}) == 4


@pytest.mark.parametrize("stage", ["eval_scores", "instruction_tuned_eval_scores"])
def test_scores_follow_what_is_asked_and_by_what_but_not_the_metric_that_is_shown(
    light: LightProject, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def scores(**task: Any) -> Spec:
        evaluation = Evaluation(harness_tasks=(HarnessTask(task="piqa", **task),))
        return spec(light, f"vanilla/{stage}", "seed-0", evaluation=evaluation)

    plain = scores()
    assert plain.identity == scores(metric="acc").identity != scores(num_fewshot=5).identity
    Evaluation.model_validate(plain.recipe["evaluation"], strict=False)  # the worker reads it
    monkeypatch.setattr("instpt_assets.defs.plan.version", lambda name: f"another {name}")
    assert scores().identity != plain.identity
    assert scores().recipe["lm_eval"] == "another lm-eval"


def test_the_report_follows_the_metric_that_a_task_names(light: LightProject) -> None:
    tasks = (HarnessTask(task="piqa", metric="acc"), HarnessTask(task="boolq"))
    assert spec(light, "comparison_report", "all", evaluation=Evaluation(harness_tasks=tasks)).recipe["metrics"] == {"piqa": "acc"}
