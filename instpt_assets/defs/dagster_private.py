"""What is used of Dagster beyond its public names, and what is mended in it, in one place, for whoever raises its version."""

import time

from dagster._core.definitions.executor_definition import IN_PROC_CONFIG
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition
from dagster._core.errors import raise_execution_interrupts
from dagster._core.execution.context.system import PlanOrchestrationContext
from dagster._core.execution.plan.active import ActiveExecution
from dagster._core.execution.plan.instance_concurrency_context import InstanceConcurrencyContext
from dagster._core.execution.plan.plan import ExecutionPlan
from dagster._core.executor.in_process import InProcessExecutor
from dagster._core.storage.tags import ASSET_PARTITION_RANGE_END_TAG, ASSET_PARTITION_RANGE_START_TAG

__all__ = [
    "ASSET_PARTITION_RANGE_END_TAG",
    "ASSET_PARTITION_RANGE_START_TAG",
    "IN_PROC_CONFIG",
    "ExecutionPlan",
    "InProcessExecutor",
    "InstanceConcurrencyContext",
    "PlanOrchestrationContext",
    "UnresolvedAssetJobDefinition",
]


def _seconds_to_next_claim(self: InstanceConcurrencyContext) -> float:
    """Dagster's own is never above 0: a run that waits for a place in a pool would keep a core busy, for hours."""
    return max(0.0, min(self._pending_timeouts.values(), default=0.0) - time.time())


_sleep_til_ready = ActiveExecution.sleep_til_ready


def _sleep_til_ready_or_interrupted(self: ActiveExecution) -> None:
    """In Dagster's own an interrupt takes effect only within a step: a run that waits could not be ended."""
    with raise_execution_interrupts():
        _sleep_til_ready(self)


ActiveExecution.sleep_til_ready = _sleep_til_ready_or_interrupted  # type: ignore[method-assign]
InstanceConcurrencyContext.interval_to_next_pending_claim_check = _seconds_to_next_claim  # type: ignore[method-assign]
