"""[<pair set>] instruction_pairs, augmented_corpus, corpus_quality, tokenized_augmented: one way of writing pairs over the shards."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import dagster as dg

from instpt_assets.augmentation.augment import augment
from instpt_assets.defs.attributes import GPU_POOL, MODELS, attributes
from instpt_assets.defs.budgets import Budget
from instpt_assets.defs.decontamination import contamination_index, index_deps
from instpt_assets.defs.materialization import materialize
from instpt_assets.defs.partitions import SHARDS, SINGLE_RUN, same
from instpt_assets.defs.project import Project
from instpt_assets.defs.quality import quality_asset
from instpt_assets.defs.workers import materialize_in_worker
from instpt_assets.mixture.tokenized import tokenize_augmented
from instpt_assets.recipe.synthesis import PairSet
from instpt_assets.recipe.writers import ImportedWriter, RuleBasedWriter, ServerWriter
from instpt_assets.synthesis.importing import import_pairs
from instpt_assets.synthesis.rule_based import write_rule_based_pairs

_AUTHORS = {
    "synthesizer": "the synthesizer",
    "chat": "a chat model",
    "server": "running servers",
    "imported": "the shard's documents brought with them, each document being one passage",
    "rule_based": "rules found in every passage of the shard, by connectives, titles and sentences",
}


def pair_set_assets(project: Project, name: str) -> list[dg.AssetsDefinition]:
    """The assets of one pair set."""
    recipe = project.recipe
    pairs_key, augmented_key = (f"{name}/{stage}" for stage in ("instruction_pairs", "augmented_corpus"))

    @dg.asset(
        **attributes(augmented_key, name, kinds={"polars"}),
        partitions_def=SHARDS,
        backfill_policy=SINGLE_RUN,
        deps=[*same(pairs_key, "clean_corpus"), *index_deps(recipe)],
    )
    def augmented_corpus(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult]:
        """Chains laid out as pre-training texts; passages without pairs stay as they are."""
        yield from materialize(
            context,
            project,
            augmented_key,
            lambda spec, inputs, out: augment(
                inputs[pairs_key, spec.partition].tables(),
                inputs["clean_corpus", spec.partition].tables(),
                recipe.layouts,
                pair_set=name,
                out=out,
                contamination=contamination_index(inputs),
            ),
        )

    @dg.asset(
        **attributes(f"{name}/tokenized_augmented", "tokens", kinds={"numpy"}),
        partitions_def=SHARDS,
        backfill_policy=SINGLE_RUN,
        deps=same(augmented_key, "tokenizer"),
    )
    def tokenized_augmented(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult]:
        """Token ids of the shard's augmented texts as one flat array with offsets."""
        yield from materialize(
            context,
            project,
            f"{name}/tokenized_augmented",
            lambda spec, inputs, out: tokenize_augmented(
                inputs[augmented_key, spec.partition].tables(), tokenizer=inputs["tokenizer", "all"].local() / "tokenizer", out=out
            ),
        )

    return [_pairs_asset(project, pairs_key, recipe.pair_sets[name]), augmented_corpus, quality_asset(project, name), tokenized_augmented]


def _pairs_asset(project: Project, key: str, pair_set: PairSet) -> dg.AssetsDefinition:
    """`instruction_pairs`, made as its writer wants it: by a worker that runs a model or asks servers, or, where nothing is generated, here."""
    writer = pair_set.writer
    group = key.split("/")[0]

    if isinstance(writer, ImportedWriter | RuleBasedWriter):

        @dg.asset(
            **attributes(key, group, kinds={"polars"}),
            description=f"Instruction-response pairs that {_AUTHORS[writer.kind]}; no model writes.",
            partitions_def=SHARDS,
            backfill_policy=SINGLE_RUN,
            deps=same("clean_corpus"),
        )
        def found_pairs(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult]:
            yield from materialize(
                context,
                project,
                key,
                lambda spec, inputs, out: _find_pairs(inputs["clean_corpus", spec.partition].tables(), pair_set, out=out),
            )

        return found_pairs

    if isinstance(writer, ServerWriter):
        kind, pool, engine = "openai", None, "they run elsewhere"
    else:
        kind, pool, engine = "vllm", GPU_POOL, "one engine start serves all shards of a run"

    @dg.asset(
        **attributes(key, group, kinds={kind}, owners=MODELS),
        description=f"Instruction-response pairs that {_AUTHORS[writer.kind]} wrote about every passage of the shard, in chains of M passages; {engine}.",
        partitions_def=SHARDS,
        backfill_policy=SINGLE_RUN,
        deps=same("clean_corpus", *(["instruction_synthesizer"] if pair_set.tuned_here else [])),
        pool=pool,
    )
    def instruction_pairs(context: dg.AssetExecutionContext, config: Budget) -> Iterator[dg.MaterializeResult]:
        yield from materialize_in_worker(context, project, "synthesize", [key], config)

    return instruction_pairs


def _find_pairs(clean_tables: Sequence[Path], pair_set: PairSet, *, out: Path) -> dict[str, Any]:
    """Write the pairs that the documents bring with them, or that rules find in them."""
    if isinstance(pair_set.writer, ImportedWriter):
        return import_pairs(clean_tables, pair_set.writer, fraction=pair_set.fraction, out=out)
    return write_rule_based_pairs(clean_tables, pair_set, out=out)
