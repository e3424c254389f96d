"""[synthesizer] tuning_collection, instruction_synthesizer, synthesizer_quality."""

from collections.abc import Iterator

import dagster as dg

from instpt_assets.defs.attributes import GPU_POOL, MODELS, attributes
from instpt_assets.defs.decontamination import contamination_index, index_deps
from instpt_assets.defs.materialization import materialize
from instpt_assets.defs.partitions import pinned, same
from instpt_assets.defs.project import Project
from instpt_assets.defs.sources import unchanged
from instpt_assets.defs.workers import materialize_in_worker
from instpt_assets.recipe.synthesis import Synthesizer, Tuning
from instpt_assets.synthesis.tuning_collection import build_tuning_collection

GROUP = "synthesizer"


def tuning_assets(project: Project, tuning: Tuning) -> list[dg.AssetsDefinition]:
    """The tuning collection."""

    @dg.asset(**attributes("tuning_collection", GROUP, kinds={"polars"}), deps=index_deps(project.recipe))
    def tuning_collection(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult]:
        """Contexts with instruction-response pairs: what the synthesizer learns from, and a held-out part that it is measured on."""
        build = unchanged(
            lambda spec, inputs, out: build_tuning_collection(tuning, out=out, contamination=contamination_index(inputs)),
            [source.source for source in tuning.sources.values()],
        )
        yield from materialize(context, project, "tuning_collection", build)

    return [tuning_collection]


def synthesizer_assets(project: Project, synthesizer: Synthesizer) -> list[dg.AssetsDefinition]:
    """The synthesizer and its quality."""

    @dg.asset(
        **attributes("instruction_synthesizer", GROUP, kinds={"pytorch"}, owners=MODELS),
        deps=[*same("tuning_collection"), *pinned("clean_corpus", synthesizer.pinned_shards)],
        pool=GPU_POOL,
    )
    def instruction_synthesizer(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult]:
        """The model that writes pairs, tuned on the tuning collection with loss on pairs only."""
        yield from materialize_in_worker(context, project, "tune", ["instruction_synthesizer"])

    @dg.asset(
        **attributes("synthesizer_quality", GROUP, kinds={"pytorch"}, owners=MODELS),
        deps=same("tuning_collection", "instruction_synthesizer"),
        pool=GPU_POOL,
    )
    def synthesizer_quality(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult]:
        """How well the synthesizer answers, and what pairs it writes, on held-out contexts."""
        yield from materialize_in_worker(context, project, "judge", ["synthesizer_quality"])

    return [instruction_synthesizer, synthesizer_quality]
