"""[tokens] tokenizer, tokenized_raw, tokenized_instructions."""

from collections.abc import Iterator

import dagster as dg

from instpt_assets.defs.attributes import attributes
from instpt_assets.defs.materialization import materialize
from instpt_assets.defs.partitions import SHARDS, SINGLE_RUN, pinned, same
from instpt_assets.defs.project import Project
from instpt_assets.defs.sources import unchanged
from instpt_assets.mixture.instructions import tokenize_instructions
from instpt_assets.mixture.tokenized import tokenize_raw
from instpt_assets.mixture.tokenizer import FILES, make_tokenizer
from instpt_assets.training.base_models import planned_base_model

GROUP = "tokens"


def token_assets(project: Project) -> list[dg.AssetsDefinition]:
    """The tokenizer, and the tokens of raw documents and of instructions."""
    recipe = project.recipe

    @dg.asset(**attributes("tokenizer", GROUP, kinds={"huggingface"}), deps=pinned("clean_corpus", recipe.tokenizer.pinned_shards))
    def tokenizer(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult]:
        """The tokenizer of the pre-trained models: a byte-level BPE learned from the pinned shards, or the base model's."""
        yield from materialize(
            context,
            project,
            "tokenizer",
            lambda spec, inputs, out: make_tokenizer(
                recipe.tokenizer,
                [path for artifact in inputs.values() for path in artifact.tables()],
                base_model=planned_base_model(spec, FILES).folder() if recipe.tokenizer.model else None,
                out=out,
            ),
        )

    @dg.asset(
        **attributes("tokenized_raw", GROUP, kinds={"numpy"}),
        partitions_def=SHARDS,
        backfill_policy=SINGLE_RUN,
        deps=same("clean_corpus", "tokenizer"),
    )
    def tokenized_raw(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult]:
        """Token ids of the shard's documents as one flat array with offsets."""
        yield from materialize(
            context,
            project,
            "tokenized_raw",
            lambda spec, inputs, out: tokenize_raw(
                inputs["clean_corpus", spec.partition].tables(), tokenizer=inputs["tokenizer", "all"].local() / "tokenizer", out=out
            ),
        )

    return [tokenizer, tokenized_raw]


def instruction_token_assets(project: Project) -> list[dg.AssetsDefinition]:
    """Tokens of the tuning collection and the general instructions."""
    recipe = project.recipe
    deps = same("tokenizer", *(["tuning_collection"] if recipe.tuning else []))

    @dg.asset(**attributes("tokenized_instructions", GROUP, kinds={"numpy"}), deps=deps)
    def tokenized_instructions(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult]:
        """Tuning data laid out as augmented texts are, and instructions with the spans of their responses."""
        yield from materialize(
            context,
            project,
            "tokenized_instructions",
            unchanged(
                lambda spec, inputs, out: tokenize_instructions(
                    collection_tables=inputs["tuning_collection", "all"].tables() if recipe.tuning else [],
                    general=recipe.general_instructions,
                    tokenizer=inputs["tokenizer", "all"].local() / "tokenizer",
                    layouts=recipe.layouts,
                    out=out,
                ),
                [recipe.general_instructions.source] if recipe.general_instructions else [],
            ),
        )

    return [tokenized_instructions]
