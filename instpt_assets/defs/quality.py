"""[<pair set>] corpus_quality: measures of a pair set over all its shards, in this process or, with a judge, in a worker."""

from collections.abc import Iterator

import dagster as dg

from instpt_assets.augmentation.quality import make_corpus_quality
from instpt_assets.defs.attributes import GPU_POOL, MODELS, OWNERS, attributes
from instpt_assets.defs.materialization import materialize
from instpt_assets.defs.partitions import every
from instpt_assets.defs.project import Project
from instpt_assets.defs.workers import materialize_in_worker


def quality_asset(project: Project, pair_set: str) -> dg.AssetsDefinition:
    """`<pair set>/corpus_quality`."""
    recipe, judge = project.recipe, project.recipe.corpus_quality.judge
    key = f"{pair_set}/corpus_quality"
    engine = {"chat": {"vllm"}, "server": {"openai"}}[judge.kind] if judge else set[str]()
    upstream = [f"{pair_set}/instruction_pairs", f"{pair_set}/augmented_corpus", *(["clean_corpus"] if recipe.decontamination else [])]

    @dg.asset(
        **attributes(key, pair_set, kinds={"polars", *engine}, owners=OWNERS if judge is None else MODELS),
        description="Stated measures of all pairs, and a page with raw and augmented texts side by side"
        + (f"; {judge.model} judges the pairs of a sample." if judge else "."),
        deps=every(*upstream),
        pool=GPU_POOL if judge is not None and judge.kind == "chat" else None,
    )
    def corpus_quality(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult]:
        if judge is None:
            yield from materialize(context, project, key, make_corpus_quality)
        else:
            yield from materialize_in_worker(context, project, "judge_pairs", [key])

    return corpus_quality
