"""Which of the recipe's fields the identities of a stage follow."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from light_project import LightProject

from instpt_assets.augmentation import phrasings
from instpt_assets.augmentation.phrasings import PHRASINGS, load_phrasings
from instpt_assets.defs.plan import Plan
from instpt_assets.recipe.evaluation import Evaluation, HarnessTask
from instpt_assets.recipe.recipe import Recipe
from instpt_assets.recipe.synthesis import Tuning
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
    monkeypatch.setattr("instpt_assets.defs.stage_inputs.version", lambda name: f"another {name}")
    assert scores().identity != plain.identity
    assert scores().recipe["lm_eval"] == "another lm-eval"


def test_the_report_follows_the_metric_that_a_task_names(light: LightProject) -> None:
    tasks = (HarnessTask(task="piqa", metric="acc"), HarnessTask(task="boolq"))
    assert spec(light, "comparison_report", "all", evaluation=Evaluation(harness_tasks=tasks)).recipe["metrics"] == {"piqa": "acc"}


def test_texts_follow_the_words_of_the_phrasings_files(light: LightProject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def identities() -> dict[str, str]:
        stages = {"pairs/augmented_corpus": "notes--a", "pairs/tokenized_augmented": "notes--a", "tokenized_instructions": "all"}
        return {stage: spec(light, stage, partition, tuning=tuning).identity for stage, partition in stages.items()}

    tuning = Tuning.model_validate({"sources": {"topics": {"source": "pydoc://topics"}}})
    before = identities()
    folder = shutil.copytree(PHRASINGS, tmp_path / "edited")
    monkeypatch.setattr(phrasings, "load_phrasings", lambda: load_phrasings(folder))
    content = yaml.safe_load((folder / "dialog_names.yaml").read_text())
    (folder / "dialog_names.yaml").write_text("# Another layout.\n" + yaml.safe_dump(content | {"about": "Reworded."}))
    load_phrasings.cache_clear()
    assert identities() == before
    content["entries"].reverse()  # the draws pick by place
    (folder / "dialog_names.yaml").write_text(yaml.safe_dump(content))
    load_phrasings.cache_clear()
    after = identities()
    assert {stage for stage in before if before[stage] != after[stage]} == {"pairs/augmented_corpus", "tokenized_instructions"}
