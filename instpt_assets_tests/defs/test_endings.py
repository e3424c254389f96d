"""However a run ends, nothing of it stays behind, and the next one goes on from what was kept: with the real engine and a real training."""

import json
import os
import shutil
import signal
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import psutil
import pytest
import yaml
from daemon import daemon
from project_folder import RECIPE, ProjectFolder
from running import END_SECONDS, MARK, Running, marked_processes, wait_for

from instpt_assets.corpus.documentation import read_documentation

pytestmark = pytest.mark.timeout(900)

PAIRS, CHECKPOINT = "synthesized/instruction_pairs", "vanilla/pretrained_checkpoint"


class LongProject(ProjectFolder):
    """Its second shard keeps the engine busy, and its training two processes, long enough to be ended in the middle."""

    def __init__(self, root: Path) -> None:
        pretraining = {**RECIPE["pretraining"], "optimization": {"token_budget": 500 * 1024, "batch_tokens": 1024, "learning_rate": 0.003}}
        pair_set = {"shots": 2, "max_model_len": 512, "max_new_tokens": 128, "max_passage_tokens": 100}
        # Trained so little that it does not know when to end: every completion takes all its tokens.
        optimization = {**RECIPE["synthesizer"]["optimization"], "token_budget": 10240}
        synthesizer = {**RECIPE["synthesizer"], "optimization": optimization}
        super().__init__(root, pretraining=pretraining, synthesizer=synthesizer, pair_sets={"synthesized": pair_set})
        execution = {"extends": "cpu", "synthesis": {"max_num_seqs": 4}, "training": {"num_processes": 2}}
        (root / "execution.yaml").write_text(yaml.safe_dump(execution))
        texts = [item.text[:3000] for item in read_documentation("pydoc://topics")][16:48]
        (root / "notes" / "b.jsonl").write_text("".join(json.dumps({"id": f"b{n}", "text": text}) + "\n" for n, text in enumerate(texts)))
        self.mark = uuid.uuid4().hex

    @property
    def environment(self) -> dict[str, str]:
        return {**super().environment, "INSTPT_EXECUTION": "execution.yaml", MARK: self.mark}

    def processes(self) -> dict[int, str]:
        """Command line of every living process of this project."""
        return marked_processes(self.mark)

    @contextmanager
    def running(self, asset: str) -> Iterator[Running]:
        """`make materialize` of one asset."""
        run = Running(self.start("--select", f'key:"{asset}"'))
        try:
            yield run
        finally:
            run.process.kill()
            run.process.wait()

    def instance(self) -> dg.DagsterInstance:
        return dg.DagsterInstance.from_config(str(self.root / "dagster"))


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> LongProject:
    project = LongProject(tmp_path_factory.mktemp("long"))
    done = project.materialize("--select", '+key:"instruction_synthesizer" or +key:"vanilla/tokenized_mixture"')
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return project


def test_a_failing_worker_says_what_to_do(long: LongProject) -> None:
    synthesizer = long.store.current("mine", "instruction_synthesizer", "all")
    assert synthesizer is not None
    weights = synthesizer.file("checkpoint/model.safetensors")
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    try:
        done = long.materialize("--select", 'key:"synthesizer_quality"')
    finally:
        weights.write_bytes(content)
    assert done.returncode == 1
    reason = f"has other content than was committed: delete {synthesizer.root} and materialize instruction_synthesizer again"
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("synthesizer_quality failed: ")]
    assert line.startswith(f"synthesizer_quality failed: the judge worker failed: synthesizer_quality/all: {synthesizer.root}/")
    assert line.endswith(reason)
    assert "Traceback" not in done.stdout + done.stderr and "Stack Trace" not in done.stdout + done.stderr


def end_in_the_middle(long: LongProject, asset: str, sign: str, number: signal.Signals) -> None:
    """Start the asset's run, end its process when its output shows the sign, and see everything below it go."""
    with long.running(asset) as run:
        wait_for(lambda: sign in run.output or run.process.poll() is not None, lambda: run.output)
        assert run.process.poll() is None, run.output
        assert len(long.processes()) > 2  # the run, the supervisor, the worker, …
        os.kill(run.process.pid, number)
        wait_for(lambda: not long.processes(), long.processes, END_SECONDS)
        run.process.wait(END_SECONDS)
    assert long.store.current("mine", asset, "seed-0" if asset == CHECKPOINT else "notes--b") is None


def kept(long: LongProject, asset: str, pattern: str) -> list[Path]:
    """Unfinished work in the store."""
    return list((long.root / "store" / "_progress" / asset).rglob(pattern))


def said(instance: dg.DagsterInstance, run: dg.DagsterRun, words: str = "") -> list[str]:
    """The run's messages with these words."""
    return [entry.user_message for entry in instance.all_logs(run.run_id) if words in entry.user_message]


def missing_pairs(runs: Sequence[dg.DagsterRun]) -> dg.DagsterRun:
    """The night's run over shards that have no pairs; those that only lack what follows have one of their own."""
    (run,) = (run for run in runs if run.tags["dagster/run_key"] == "missing")
    return run


def test_synthesis_killed_then_cancelled_in_the_ui_goes_on_and_ends_complete(long: LongProject, monkeypatch: pytest.MonkeyPatch) -> None:
    end_in_the_middle(long, PAIRS, " passages, ", signal.SIGKILL)
    committed = long.artifacts()[PAIRS, "notes--a"]
    assert kept(long, PAIRS, "*.jsonl")
    shutil.rmtree(long.root / "store" / "_progress")  # or too little would be left to cancel

    monkeypatch.chdir(long.root)
    for name, value in long.environment.items():
        monkeypatch.setenv(name, value)
    with long.instance() as instance, daemon(instance) as ticking:
        server = long.processes()

        def below() -> dict[int, str]:
            # The code server keeps a resource tracker of its own beside the processes that execute runs.
            trackers = {
                pid for pid, command in long.processes().items() if "resource_tracker" in command and psutil.Process(pid).ppid() in server
            }
            return {pid: command for pid, command in long.processes().items() if pid not in trackers | server.keys()}

        ticking.tick_schedule("nightly_synthesis", datetime.now(UTC) + timedelta(days=1))
        run = missing_pairs(ticking.launch_queued())
        wait_for(
            lambda: any(" passages, " in entry.user_message for entry in instance.all_logs(run.run_id)),
            lambda: "the engine does not generate",
        )
        assert instance.run_coordinator.cancel_run(run.run_id)
        wait_for(lambda: not below(), below, END_SECONDS)
        assert ticking.wait(run).status == dg.DagsterRunStatus.CANCELED

        ticking.tick_schedule("nightly_synthesis", datetime.now(UTC) + timedelta(days=2))
        run = missing_pairs(ticking.launch_queued())
        ended = ticking.wait(run, 200)
        assert ended.status == dg.DagsterRunStatus.SUCCESS, said(instance, run)[-5:]

    artifact = long.store.current("mine", PAIRS, "notes--b")
    assert artifact is not None and artifact.manifest.statistics["reused_chains"] > 0
    assert long.artifacts()[PAIRS, "notes--a"] == committed
    assert long.artifacts()["synthesized/tokenized_augmented", "notes--b"]


@pytest.mark.slow
def test_a_killed_training_of_two_processes_leaves_nothing_but_its_state(long: LongProject) -> None:
    end_in_the_middle(long, CHECKPOINT, " of 500, loss ", signal.SIGKILL)
    assert kept(long, CHECKPOINT, "step-*")


@pytest.mark.slow
def test_an_interrupted_training_of_two_processes_goes_on_and_ends_complete(long: LongProject) -> None:
    shutil.rmtree(long.root / "store" / "_progress", ignore_errors=True)
    end_in_the_middle(long, CHECKPOINT, " of 500, loss ", signal.SIGINT)
    done = long.materialize("--select", f'key:"{CHECKPOINT}"')
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    artifact = long.store.current("mine", CHECKPOINT, "seed-0")
    assert artifact is not None
    statistics = artifact.manifest.statistics
    assert statistics["num_processes"] == 2 and 0 < statistics["resumed_from_step"] < statistics["steps"]
