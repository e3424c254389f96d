"""[corpus] evaluation_examples, and how the assets that compare texts with it get it."""

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import dagster as dg

from instpt_assets.corpus.contamination import ContaminationIndex
from instpt_assets.defs.attributes import attributes
from instpt_assets.defs.partitions import same
from instpt_assets.defs.project import Project
from instpt_assets.defs.workers import materialize_in_worker
from instpt_assets.recipe.recipe import Recipe
from instpt_assets.store.making import Inputs

ASSET = "evaluation_examples"


def decontamination_assets(project: Project) -> list[dg.AssetsDefinition]:
    """The index, where the recipe decontaminates."""
    if project.recipe.decontamination is None:
        return []

    @dg.asset(**attributes(ASSET, "corpus", kinds={"huggingface"}))
    def evaluation_examples(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult]:
        """Every example that the recipe evaluates on, and their n-grams: documents, pairs and tuning contexts that hold words of one are left out."""
        yield from materialize_in_worker(context, project, "list_examples", [ASSET])

    return [evaluation_examples]


def index_deps(recipe: Recipe) -> list[dg.AssetDep]:
    """The dependency on the index of what is compared with it."""
    return same(ASSET) if recipe.decontamination is not None else []


def contamination_index(inputs: Inputs) -> ContaminationIndex | None:
    """The index among a stage's inputs, None where the recipe has none; read once a run, not once a shard."""
    artifact = inputs.get((ASSET, "all"))
    return None if artifact is None else _read(artifact.local())


@lru_cache(maxsize=1)
def _read(folder: Path) -> ContaminationIndex:
    return ContaminationIndex.read(folder)
