"""[comparison] comparison_report."""

from collections.abc import Iterator

import dagster as dg

from instpt_assets.defs.attributes import MODELS, attributes
from instpt_assets.defs.materialization import materialize
from instpt_assets.defs.partitions import every
from instpt_assets.defs.project import Project
from instpt_assets.evaluation.report import build_report


def comparison_assets(project: Project) -> list[dg.AssetsDefinition]:
    """The report over all arms."""
    recipe = project.recipe
    stages = ["eval_scores", *(["instruction_tuned_eval_scores"] if recipe.instruction_tuning else [])]

    @dg.asset(
        **attributes("comparison_report", "comparison", kinds={"polars"}, owners=MODELS),
        deps=every(*(f"{arm}/{stage}" for arm in recipe.arms for stage in stages)),
    )
    def comparison_report(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult]:
        """All arms side by side: a table with standard errors, plots of the scores, and of their way along each training, as HTML and Markdown."""
        yield from materialize(
            context,
            project,
            "comparison_report",
            lambda spec, inputs, out: build_report(
                [artifact.local() / "data-00000.parquet" for artifact in inputs.values()],
                arms=spec.recipe["arms"],
                metrics=spec.recipe["metrics"],
                out=out,
            ),
        )

    return [comparison_report]
