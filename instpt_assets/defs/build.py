"""All definitions of a project: which assets exist follows from its recipe."""

import dagster as dg

from instpt_assets.defs.arms import arm_assets
from instpt_assets.defs.automation import new_shards, nightly_synthesis
from instpt_assets.defs.checks import pair_checks
from instpt_assets.defs.comparison import comparison_assets
from instpt_assets.defs.console import console
from instpt_assets.defs.corpus import corpus_assets
from instpt_assets.defs.corpus_checks import corpus_checks
from instpt_assets.defs.dead_runs import in_process_executor
from instpt_assets.defs.decontamination import decontamination_assets
from instpt_assets.defs.jobs import jobs
from instpt_assets.defs.pair_sets import pair_set_assets
from instpt_assets.defs.pair_writer import written_pair_sets
from instpt_assets.defs.plan_job import plan_job
from instpt_assets.defs.project import Project
from instpt_assets.defs.synthesizer import synthesizer_assets, tuning_assets
from instpt_assets.defs.tokens import instruction_token_assets, token_assets


def build_definitions(project: Project) -> dg.Definitions:
    """Assets, jobs and automation of one recipe; an asset that the recipe does not need is not defined."""
    recipe = project.recipe
    assets = [*corpus_assets(project), *decontamination_assets(project), *token_assets(project)]
    if recipe.tuning is not None:
        assets += tuning_assets(project, recipe.tuning)
    if recipe.synthesizer is not None:
        assets += synthesizer_assets(project, recipe.synthesizer)
    if recipe.instruction_tuning or any(arm.takes_instructions for arm in recipe.arms.values()):
        assets += instruction_token_assets(project)
    for name in recipe.pair_sets:
        assets += pair_set_assets(project, name)
    assets += [*arm_assets(project), *comparison_assets(project)]
    return dg.Definitions(
        assets=assets,
        asset_checks=[*corpus_checks(project), *(pair_checks(project, name) for name in recipe.pair_sets)],
        jobs=[*jobs(assets), *([plan_job(project)] if written_pair_sets(recipe) else [])],
        schedules=[nightly_synthesis(project)],
        sensors=[new_shards(project)],
        loggers={"console": console},
        # Heavy work runs in workers; steps in the run's own process start at once and end with it.
        executor=in_process_executor,
    )
