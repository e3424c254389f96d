"""[corpus] raw_corpus, document_signatures, duplicate_documents, clean_corpus."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg

from instpt_assets.corpus.cleaning import clean
from instpt_assets.corpus.duplicates import find_duplicates
from instpt_assets.corpus.ingest import ingest
from instpt_assets.corpus.signatures import write_signatures
from instpt_assets.defs.attributes import attributes
from instpt_assets.defs.decontamination import contamination_index, index_deps
from instpt_assets.defs.materialization import made_by_run, materialize
from instpt_assets.defs.partitions import SHARDS, SINGLE_RUN, every, same
from instpt_assets.defs.project import Project
from instpt_assets.store.making import Inputs
from instpt_assets.store.manifest import Spec

GROUP = "corpus"


def corpus_assets(project: Project) -> list[dg.AssetsDefinition]:
    """The assets that every recipe has."""
    recipe = project.recipe

    @dg.asset(**attributes("raw_corpus", GROUP, kinds={"polars"}), partitions_def=SHARDS, backfill_policy=SINGLE_RUN)
    def raw_corpus(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult]:
        """Documents of a shard as read from its source, normalised; bad records lie in `rejected` with reason and position."""
        plan = project.plan()
        yield from materialize(
            context,
            project,
            "raw_corpus",
            lambda spec, inputs, out: ingest(
                plan.shard(spec.partition),
                recipe.corpora[plan.shard(spec.partition).corpus],
                out=out,
                digest=spec.inputs[0].digest,  # of its only input, the file
            ),
            plan=plan,
        )

    @dg.asset(
        **attributes("document_signatures", GROUP, kinds={"polars"}),
        partitions_def=SHARDS,
        backfill_policy=SINGLE_RUN,
        deps=same("raw_corpus"),
    )
    def document_signatures(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult]:
        """MinHash signatures of a shard's documents."""
        yield from materialize(
            context,
            project,
            "document_signatures",
            lambda spec, inputs, out: write_signatures(inputs["raw_corpus", spec.partition].tables(), recipe.deduplication, out=out),
        )

    @dg.asset(**attributes("duplicate_documents", GROUP, kinds={"polars"}), deps=every("document_signatures"))
    def duplicate_documents(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult]:
        """A removal list per shard; of two duplicates the one in the earlier registered shard stays."""

        def build(spec: Spec, inputs: Inputs, out: Path) -> dict[str, Any]:
            order = spec.recipe["order"]
            folders = project.store.each(lambda key: inputs["document_signatures", key].local(), order)
            return find_duplicates(dict(zip(order, folders, strict=True)), recipe.deduplication, out=out)

        yield from materialize(
            context,
            project,
            "duplicate_documents",
            build,
            shared=True,
        )

    @dg.asset(
        **attributes("clean_corpus", GROUP, kinds={"polars"}),
        partitions_def=SHARDS,
        backfill_policy=SINGLE_RUN,
        deps=[*same("raw_corpus", "duplicate_documents"), *index_deps(recipe)],
    )
    def clean_corpus(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult]:
        """A shard's documents without what the cleaning's steps remove, addresses masked if the recipe says so; what was removed lies beside them."""
        yield from materialize(
            context,
            project,
            "clean_corpus",
            lambda spec, inputs, out: clean(
                inputs["raw_corpus", spec.partition].tables(),
                inputs["duplicate_documents", "all"].file(f"removed/{spec.partition}.parquet"),
                recipe.cleaning,
                out=out,
                contamination=contamination_index(inputs),
            ),
            # A run over other shards may meanwhile have made another list the current one, that knows no shard of this run.
            plan=project.plan(duplicates=made_by_run(context, project, "duplicate_documents")),
        )

    return [raw_corpus, document_signatures, duplicate_documents, clean_corpus]
