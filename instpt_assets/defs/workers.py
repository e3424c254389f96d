"""Start a worker for an asset, pass on its progress, and make sure that nothing of it outlives the run."""

import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import dagster as dg

from instpt_assets.defs.budgets import Budget
from instpt_assets.defs.materialization import Outcome, expected_spec, explained, failure
from instpt_assets.defs.progress import Progress
from instpt_assets.defs.project import Project
from instpt_assets.defs.supervised import END_SECONDS, ended_by, supervised
from instpt_assets.store.making import Made
from instpt_assets.store.manifest import Spec
from instpt_assets.workers.runtime import Task

POLL_SECONDS = 0.2
TRAININGS = ("tune", "pretrain", "instruction_tune")
"""Workers that save their state when they are cancelled, which takes its time."""


def make_in_worker(
    context: dg.AssetExecutionContext,
    project: Project,
    stage: str,
    specs: Sequence[Spec],
    committed: Callable[[Spec, Made], None] = lambda spec, made: None,
    stopped: Callable[[Mapping[str, Any]], None] = lambda message: None,
    budget: Budget | None = None,
) -> dict[tuple[str, str], Made]:
    """The artifacts of these identities: the store's, and what is missing made by one worker of that stage.

    Args:
        committed: called for each artifact as soon as it is in the store.
        stopped: called when the worker ends at its limit, with what it tells of the unfinished artifacts.
        budget: the limit, where it is not the execution profile's.

    Returns:
        Made artifacts by (asset, partition).

    Raises:
        dg.Failure: the worker failed; what it had committed stays and was reported through `committed`.
    """
    made: dict[tuple[str, str], Made] = {}

    def done(spec: Spec, *, reused: bool) -> None:
        with explained(f"{spec.asset}/{spec.partition}"):
            artifact = project.store.find(spec)
        if artifact is None:
            raise dg.Failure(f"{spec.asset}/{spec.partition}: the worker reported it, but it is not in {project.store.url}")
        project.store.point(project.recipe.name, artifact)
        made[spec.asset, spec.partition] = Made(artifact, reused)
        committed(spec, made[spec.asset, spec.partition])

    with explained(stage):
        missing = {(spec.asset, spec.partition): spec for spec in specs if project.store.find(spec) is None}
    for spec in specs:
        if (spec.asset, spec.partition) not in missing:
            done(spec, reused=True)
    if not missing:
        context.log.info("everything is in the store: no worker is started")
        return made

    unfinished: set[tuple[str, str]] = set()
    progress = Progress(context)

    def on_message(message: Mapping[str, Any]) -> None:
        if message["kind"] == "committed":
            done(missing[message["asset"], message["partition"]], reused=bool(message["reused"]))
        elif message["kind"] == "progress":
            progress.tell(message)
        elif message["kind"] == "stopped":
            unfinished.update((message["asset"], partition) for partition in message["partitions"])
            stopped(message)

    execution = budget.applied(project.execution) if budget else project.execution
    run(context, stage, Task(store=project.store.url, execution=execution, jobs=tuple(missing.values())), on_message)
    lost = [spec for key, spec in missing.items() if key not in made and key not in unfinished]
    if lost:
        raise dg.Failure(f"the {stage} worker ended without {', '.join(f'{s.asset}/{s.partition}' for s in lost)}")
    return made


def materialize_in_worker(
    context: dg.AssetExecutionContext, project: Project, stage: str, assets: Sequence[str], budget: Budget | None = None
) -> Iterator[dg.MaterializeResult]:
    """Make the run's partitions of these assets in one worker of that stage, and report them. One that fails does not stop the others.

    Where the worker ends at its limit, what it left has no materialization, and the step is no failure.

    Raises:
        dg.Failure: inputs are missing, or the worker failed; the description says what to do.
    """
    plan = project.plan()
    outcomes = {asset: Outcome(context, asset, plan) for asset in assets}
    specs = []
    for asset, outcome in outcomes.items():
        for key in outcome.keys:
            try:
                specs.append(expected_spec(plan, asset, key))
            except dg.Failure as error:
                outcome.failed(key, error)
    try:
        if specs:
            make_in_worker(
                context,
                project,
                stage,
                specs,
                committed=lambda spec, made: outcomes[spec.asset].committed(spec.partition, made),
                stopped=lambda message: outcomes[message["asset"]].stopped(message["reason"], message["partitions"]),
                budget=budget,
            )
    except dg.Failure as error:
        for spec in specs:
            outcome = outcomes[spec.asset]
            if spec.partition not in outcome.made and spec.partition not in outcome.unfinished:
                outcome.failed(spec.partition, error)
    errors = []
    for outcome in outcomes.values():
        try:
            yield from outcome.report()
        except Exception as error:
            errors.append(error)
    if errors:
        raise failure(errors)


def run(context: dg.AssetExecutionContext, stage: str, task: Task, on_message: Callable[[Mapping[str, Any]], None]) -> None:
    """Run `python -m instpt_assets.workers.<stage>` on the task under a supervisor, handing on its messages as they come.

    Raises:
        dg.Failure: the worker failed; the description is its own error.
    """
    errors: list[str] = []
    with dg.open_pipes_session(
        context=context,
        context_injector=dg.PipesTempFileContextInjector(),
        message_reader=dg.PipesTempFileMessageReader(),
        extras=task.model_dump(mode="json"),
    ) as session:
        seen = 0

        def hand_on() -> None:
            nonlocal seen
            messages = session.get_custom_messages()
            for message in messages[seen:]:
                seen += 1
                if message["kind"] == "failed":
                    errors.append(str(message["error"]))
                else:
                    on_message(message)

        end_seconds = task.execution.training.end_seconds if stage in TRAININGS else END_SECONDS
        with supervised(stage, environment=session.get_bootstrap_env_vars(), end_seconds=end_seconds) as process:
            while True:
                try:
                    process.wait(POLL_SECONDS)
                    break
                except subprocess.TimeoutExpired:
                    hand_on()
    hand_on()
    if process.returncode != 0:
        reason = errors[-1] if errors else f"{ended_by(process.returncode)}; its output stands above, and under the run's stderr in the UI"
        raise dg.Failure(f"the {stage} worker failed: {reason}", allow_retries=False)
