"""A pair set's writer as it stands in the store now: what plans, pilots and single texts begin with."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from instpt_assets.defs.current_artifacts import NotMaterialized
from instpt_assets.defs.plan import CODE_VERSIONS, Plan
from instpt_assets.defs.project import Project
from instpt_assets.recipe.recipe import Recipe
from instpt_assets.recipe.synthesis import PairSet
from instpt_assets.recipe.writers import ModelFreeWriter, RuleBasedWriter
from instpt_assets.store.manifest import Spec, canonical_json
from instpt_assets.synthesis.execution_profile import execution_profile
from instpt_assets.synthesis.measured import Writing
from instpt_assets.synthesis.writers import writer_format
from instpt_assets.synthesis.writing import Format
from instpt_assets.workers.synthesize import model_folder


@dataclass(frozen=True)
class PairWriter:
    """A pair set with what writes it."""

    project: Project
    plan: Plan
    name: str
    """The pair set's."""
    writing: Writing
    """Who writes, and how."""
    pair_set: PairSet
    """The pair set, its model at the revision that it has now."""
    format: Format
    """How the writer is asked."""
    model: Path | None
    """The folder of its model."""

    @classmethod
    def find(cls, project: Project, name: str) -> Self:
        """The writer of a pair set that `chosen_pair_sets` gave.

        Raises:
            NotMaterialized: the synthesizer is missing; the message says what to do.
            BaseModelError: its model cannot be had.
        """
        plan = project.plan()
        try:
            recipe, inputs = plan.writing(name)
        except NotMaterialized as error:
            raise NotMaterialized(f"{error}: make materialize SELECT='+key:\"instruction_synthesizer\"'") from error
        fingerprint = execution_profile(project.execution, project.recipe.pair_sets[name].writer)["fingerprint"]
        writing = Writing(f"{name}/instruction_pairs", recipe, tuple(inputs), fingerprint)
        pair_set = PairSet.model_validate_json(canonical_json(recipe))
        model = model_folder(project.store, _spec(writing, "all"))
        return cls(project, plan, name, writing, pair_set, writer_format(pair_set, model), model)

    def of_text(self) -> Spec:
        """A spec for texts that belong to no shard."""
        return _spec(self.writing, "text")


def written_pair_sets(recipe: Recipe) -> list[str]:
    """The pair sets whose pairs a model writes."""
    return [key for key, part in recipe.pair_sets.items() if not isinstance(part.writer, ModelFreeWriter)]


def is_rule_based(recipe: Recipe, name: str) -> bool:
    """Whether rules find the pair set's pairs."""
    return isinstance(recipe.pair_sets[name].writer, RuleBasedWriter)


def chosen_pair_sets(recipe: Recipe, name: str | None) -> Sequence[str]:
    """The pair sets that a command is about: the named one, or all whose pairs a model writes.

    Raises:
        ValueError: there is none of that name, or nothing is written for it.
    """
    written = written_pair_sets(recipe)
    known = ", ".join(written) or "none"
    if name is None:
        if not written:
            raise ValueError(f"the recipe '{recipe.name}' has no pair set whose pairs a model writes")
        return written
    if name not in recipe.pair_sets:
        raise ValueError(f"PAIR_SET: the recipe '{recipe.name}' has no pair set '{name}' (it has: {', '.join(recipe.pair_sets) or 'none'})")
    if name not in written and is_rule_based(recipe, name):
        raise ValueError(
            f"PAIR_SET: the pairs of '{name}' are found by rules, no model writes them (those that one writes: {known}): "
            "make materialize makes them, make pairs shows those of a text"
        )
    if name not in written:
        raise ValueError(
            f"PAIR_SET: the pairs of '{name}' are imported with its corpus, no model writes them (those that one writes: {known})"
        )
    return [name]


def chosen_pair_set(recipe: Recipe, name: str | None) -> str:
    """The one pair set that a command is about.

    Raises:
        ValueError: see `chosen_pair_sets`; or there are several and none is named.
    """
    found = chosen_pair_sets(recipe, name)
    if len(found) > 1:
        raise ValueError(f"PAIR_SET: say which: {', '.join(found)}")
    return found[0]


def _spec(writing: Writing, partition: str) -> Spec:
    version = CODE_VERSIONS["instruction_pairs"]
    return Spec(asset=writing.asset, partition=partition, code_version=version, recipe=dict(writing.recipe), inputs=tuple(writing.inputs))
