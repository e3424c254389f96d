"""[<arm>] tokenized_mixture, pretrained_checkpoint, instruction_tuned_checkpoint and their scores.

One operation serves a stage that runs models for all arms, so that one worker start serves every arm and seed of a run; each arm's lineage
is its own.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg

from instpt_assets.defs.attributes import GPU_POOL, MODELS, attributes
from instpt_assets.defs.materialization import materialize
from instpt_assets.defs.partitions import SINGLE_RUN, every, pinned, same, seed_partitions
from instpt_assets.defs.project import Project
from instpt_assets.defs.task_names import check_task_names
from instpt_assets.defs.workers import materialize_in_worker
from instpt_assets.mixture.mix import build_mixture
from instpt_assets.mixture.row_index import stored_indices
from instpt_assets.recipe.arms import Arm
from instpt_assets.store.making import Inputs
from instpt_assets.store.manifest import Spec


def arm_assets(project: Project) -> list[dg.AssetsDefinition]:
    """The assets of all arms, stage by stage."""
    recipe = project.recipe
    seeds = seed_partitions(recipe)
    tuned = recipe.instruction_tuning is not None

    @dg.multi_asset(
        specs=[
            dg.AssetSpec(
                **attributes(f"{name}/pretrained_checkpoint", name, kinds={"pytorch"}, owners=MODELS),
                deps=same(f"{name}/tokenized_mixture", "tokenizer"),
                description="The model pre-trained on the arm's mixture (from scratch, or continued from the base model), as a Hugging Face folder.",
            )
            for name in recipe.arms
        ],
        partitions_def=seeds,
        backfill_policy=SINGLE_RUN,
        can_subset=True,
        pool=GPU_POOL,
    )
    def pretrained_checkpoints(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult]:
        plan = project.plan()
        if not all(plan.is_current(asset, key) for asset in _selected(context) for key in context.partition_keys):
            check_task_names(recipe.evaluation)
        yield from materialize_in_worker(context, project, "pretrain", _selected(context))

    @dg.multi_asset(
        specs=[
            dg.AssetSpec(
                **attributes(f"{name}/instruction_tuned_checkpoint", name, kinds={"pytorch"}, owners=MODELS),
                deps=same(f"{name}/pretrained_checkpoint", "tokenized_instructions", "tokenizer"),
                description="The pre-trained model after instruction tuning with loss on responses only.",
            )
            for name in recipe.arms
        ],
        partitions_def=seeds,
        backfill_policy=SINGLE_RUN,
        can_subset=True,
        pool=GPU_POOL,
    )
    def instruction_tuned_checkpoints(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult]:
        yield from materialize_in_worker(context, project, "instruction_tune", _selected(context))

    @dg.multi_asset(
        specs=[
            dg.AssetSpec(
                **attributes(f"{name}/{scores}", name, kinds={"huggingface"}, owners=MODELS),
                deps=same(f"{name}/{checkpoint}"),
                description=description,
            )
            for name in recipe.arms
            for checkpoint, scores, description in _SCORES[: 2 if tuned else 1]
        ],
        partitions_def=seeds,
        backfill_policy=SINGLE_RUN,
        can_subset=True,
        pool=GPU_POOL,
    )
    def scores(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult]:
        yield from materialize_in_worker(context, project, "evaluate", _selected(context))

    mixtures = [_mixture(project, name, arm, seeds) for name, arm in recipe.arms.items()]
    return [*mixtures, pretrained_checkpoints, *([instruction_tuned_checkpoints] if tuned else []), scores]


_SCORES = [
    ("pretrained_checkpoint", "eval_scores", "Scores of the pre-trained model by lm-eval, and held-out bits per byte."),
    ("instruction_tuned_checkpoint", "instruction_tuned_eval_scores", "The same scores of the instruction-tuned model."),
]


def _mixture(project: Project, name: str, arm: Arm, seeds: dg.StaticPartitionsDefinition) -> dg.AssetsDefinition:
    """An operation of its own, for one could not take all shards for one arm and pinned ones for another."""

    @dg.asset(
        **attributes(f"{name}/tokenized_mixture", name, kinds={"numpy"}),
        partitions_def=seeds,
        backfill_policy=SINGLE_RUN,
        deps=_components(project, arm),
    )
    def tokenized_mixture(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult]:
        """The arm's training data in order: an index over tokenized shards that copies no token."""
        yield from materialize(context, project, f"{name}/tokenized_mixture", lambda spec, inputs, out: _mix(project, spec, inputs, out))

    return tokenized_mixture


def _mix(project: Project, spec: Spec, inputs: Inputs, out: Path) -> dict[str, Any]:
    name = spec.asset.split("/")[0]
    arm, recipe = project.recipe.arms[name], spec.recipe
    # The index copies no token; through this list its digest follows its sources', in whatever order their shards were registered.
    inputs_in_order = sorted(spec.inputs, key=lambda each: (each.asset, each.partition))
    sources = [{"asset": i.asset, "partition": i.partition, "digest": i.digest} for i in inputs_in_order]
    (out / "inputs.json").write_text(json.dumps(sources, indent=1) + "\n", encoding="utf-8")
    statistics = build_mixture(
        arm.mixture,
        stored_indices(project.store, inputs),
        seed=recipe["seed"],
        token_budget=recipe["token_budget"],
        extended_from=recipe.get("extended_from", ()),
        batch_tokens=recipe["batch_tokens"],
        sequence_length=recipe["sequence_length"],
        packing=recipe.get("packing", "concatenate"),
        document_attention=recipe.get("document_attention", False),
        held_out_documents=recipe.get("held_out_documents", 0),
        out=out,
    )
    if arm.allow_missing_shards:
        taken = {i.partition for i in spec.inputs}
        statistics["missing_shards"] = [key for key in project.plan().wanted_shards(name) if key not in taken]
    return statistics


def _components(project: Project, arm: Arm) -> list[dg.AssetDep]:
    """What the mixture is made from. Dagster knows no mapping to the shards of some corpora; the plan does, and decides what is stale."""
    deps = []
    for asset, corpora in arm.shard_assets(held_out=project.recipe.pretraining.held_out_documents > 0).items():
        shards = [key for key in arm.shards or () if corpora is None or key.split("--")[0] in corpora]
        deps += pinned(asset, shards) if arm.shards else every(asset)
    if arm.takes_instructions:
        deps += same("tokenized_instructions")
    return deps


def _selected(context: dg.AssetExecutionContext) -> list[str]:
    return sorted("/".join(key.path) for key in context.selected_asset_keys)
