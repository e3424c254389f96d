"""What is used of Dagster beyond its public names, in one place, for whoever raises its version."""

from dagster._core.definitions.executor_definition import IN_PROC_CONFIG
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition
from dagster._core.execution.context.system import PlanOrchestrationContext
from dagster._core.execution.plan.plan import ExecutionPlan
from dagster._core.executor.in_process import InProcessExecutor
from dagster._core.storage.tags import ASSET_PARTITION_RANGE_END_TAG, ASSET_PARTITION_RANGE_START_TAG

__all__ = [
    "ASSET_PARTITION_RANGE_END_TAG",
    "ASSET_PARTITION_RANGE_START_TAG",
    "IN_PROC_CONFIG",
    "ExecutionPlan",
    "InProcessExecutor",
    "PlanOrchestrationContext",
    "UnresolvedAssetJobDefinition",
]
