"""The check of `clean_corpus` where the recipe decontaminates: without the index, "nothing overlaps" would mean nothing."""

import dagster as dg

from instpt_assets.defs.checks import Verdict, shard_checks
from instpt_assets.defs.decontamination import ASSET
from instpt_assets.defs.partitions import SHARDS
from instpt_assets.defs.project import Project
from instpt_assets.evaluation.examples import compared_names
from instpt_assets.recipe.decontamination import Decontamination
from instpt_assets.store.store import Artifact

COMPARED = "compared_with_evaluation"


def corpus_checks(project: Project) -> list[dg.AssetChecksDefinition]:
    """The checks of `clean_corpus`."""
    decontamination = project.recipe.decontamination
    if decontamination is None:
        return []
    spec = dg.AssetCheckSpec(
        COMPARED,
        asset="clean_corpus",
        description="The shard was compared with examples of every task and every set that the recipe evaluates on. What was not goes no further.",
        blocking=True,
        partitions_def=SHARDS,
    )
    return [shard_checks(project, "clean_corpus", [spec], lambda _, artifact: _judge(project, decontamination, artifact))]


def _judge(project: Project, decontamination: Decontamination, artifact: Artifact | None) -> Verdict:
    if artifact is None:
        return Verdict(False, "its artifact is not in the store: materialize the shard again", {})
    shard = artifact.manifest.partition
    read = next((i for i in artifact.manifest.inputs if i.asset == ASSET), None)
    if read is None:
        return Verdict(False, f"{shard}: it was made without {ASSET}: materialize {ASSET}, then clean_corpus of this shard", {})
    index = project.store.get(ASSET, "all", read.identity)
    if index is None:
        return Verdict(False, f"{shard}: the {ASSET} that it was compared with is not in the store any more: materialize both again", {})
    compared = index.manifest.statistics["compared"]
    missing = [name for name in compared_names(project.recipe.evaluation, decontamination) if not compared.get(name)]
    if missing:
        told = f"{shard}: it was compared with no example of {', '.join(missing)}"
        advice = f"materialize {ASSET} and look into its skipped.parquet (examples shorter than decontamination.min_words are not compared)"
        return Verdict(False, f"{told}: {advice}, then clean_corpus", {"missing": missing})
    overlaps = artifact.manifest.statistics["removed_by_reason"].get("contaminated", 0)
    told = f"{shard}: compared with {sum(compared.values()):,} examples of {len(compared)} evaluations; {overlaps:,} documents overlapped"
    return Verdict(True, told, {"compared": compared, "overlapping_documents": overlaps})
