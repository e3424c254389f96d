"""Recipe of the evaluation: tasks of lm-eval, and held-out text for bits per byte."""

from typing import Self

from pydantic import Field, model_validator

from instpt_assets.recipe.base import Part
from instpt_assets.recipe.documentation import Documentation


class HarnessTask(Part):
    """A task that lm-eval ships."""

    task: str
    """Its name in lm-eval, e.g. `arc_easy`."""
    num_fewshot: int = Field(default=0, ge=0)
    """Examples in front of each question."""
    metric: str | None = None
    """The metric that the report shows (every metric is kept); by default `acc_norm`, `acc` or `exact_match`, the first that the task has."""


class Evaluation(Part):
    """What checkpoints are scored on."""

    harness_tasks: tuple[HarnessTask, ...] = ()
    """Tasks that lm-eval ships (they fetch their data sets from the hub)."""
    held_out: Documentation | None = None
    """`pydoc://…` with held-out documentation: multiple choice and completion tasks are built from it by rules, and bits per byte is measured on it."""
    num_examples: int = Field(default=200, ge=1)
    """Examples a task built from `held_out`."""
    limit: int | None = Field(default=None, ge=1)
    """At most so many examples of each lm-eval task."""
    seed: int = 0
    """Seed of the examples built from `held_out`."""

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not self.harness_tasks and self.held_out is None:
            raise ValueError("name harness_tasks, or held_out documentation")
        names = [task.task for task in self.harness_tasks]
        if len(set(names)) != len(names):
            raise ValueError(f"harness_tasks name a task twice: {', '.join(sorted({n for n in names if names.count(n) > 1}))}")
        return self
