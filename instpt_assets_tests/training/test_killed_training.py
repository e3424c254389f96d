"""Trainings of real worker processes that are killed at random moments, and of several processes that lose one."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from running import MARK, Running, marked_processes, wait_for
from safetensors.torch import load_file

from instpt_assets.recipe.execution import Execution, TrainingExecution
from instpt_assets.recipe.training import Optimization, Pretraining
from instpt_assets.store.manifest import Spec
from instpt_assets.store.sealed import is_intact
from instpt_assets.store.store import Artifact, Store
from instpt_assets.training.job import MixtureData, TrainingJob
from instpt_assets.training.launch import TrainingFailed, run
from instpt_assets.training.log import read_log
from instpt_assets.workers.runtime import Task
from instpt_assets_tests.training.small_store import SHAPE, SmallStore, small_store

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

KILLS, EARLY_KILLS = 10, 2
STEPS, STEP = 400, 512
ASSET = "vanilla/pretrained_checkpoint"


def optimization(steps: int, **changes: object) -> Optimization:
    fields = {"token_budget": steps * STEP, "batch_tokens": STEP, "learning_rate": 0.003, "warmup_steps": 5}
    return Optimization(**{**fields, **changes})


def with_mixture(folder: Path, steps: int) -> SmallStore:
    """A small store whose mixture holds so many steps."""
    small = small_store(Store(str(folder / "store")), folder)
    small.mix(optimization(steps))
    return small


class Worker:
    """`python -m instpt_assets.workers.pretrain` on a small store."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.small = with_mixture(folder, STEPS)
        pretraining = Pretraining(model=SHAPE, sequence_length=64, optimization=optimization(STEPS), checkpoint_steps=(STEPS // 3,))
        inputs = self.small.inputs(["vanilla/tokenized_mixture", "tokenizer"])
        recipe = {"pretraining": pretraining.hashed(), "seed": "seed-0"}
        self.spec = Spec(asset=ASSET, partition="seed-0", code_version=1, recipe=recipe, inputs=inputs)
        execution = Execution(num_threads=1, training=TrainingExecution(micro_batch_tokens=256, save_seconds=0.0))
        self.task = folder / "task.json"
        self.task.write_text(Task(store=self.small.store.url, execution=execution, jobs=(self.spec,)).model_dump_json())
        self.progress = folder / "store/_progress" / ASSET / "seed-0" / self.spec.identity

    def start(self) -> Running:
        command = [sys.executable, "-m", "instpt_assets.workers.pretrain", str(self.task)]
        return Running(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True))

    def finish(self) -> Artifact:
        running = self.start()
        assert running.process.wait(600) == 0, running.output[-3000:]
        artifact = self.small.store.find(self.spec)
        assert artifact is not None and not self.progress.exists()
        return artifact

    def states(self) -> list[str]:
        return sorted(path.name for path in self.progress.glob("step-*"))


def made(artifact: Artifact) -> dict[str, str]:
    """Digests of all files that are content: weights of all checkpoints, configurations, tokenizer, log."""
    return {file.name: file.sha256 for file in artifact.manifest.files if not file.name.startswith("logs/")}


def test_ten_kills_at_random_moments_change_no_byte(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seed = time.time_ns() % 1_000_000
    draw = random.Random(seed)
    undisturbed, worker = Worker(tmp_path / "undisturbed"), Worker(tmp_path / "killed")
    begun = time.monotonic()
    expected = undisturbed.finish()
    training, whole = expected.manifest.statistics["training_seconds"], time.monotonic() - begun
    early = set(draw.sample(range(KILLS), EARLY_KILLS))
    with capsys.disabled():
        print(f"\nkill series, seed {seed}; an undisturbed worker takes {whole:.1f} s, {training:.1f} s of them for {STEPS} steps")
        print("kill  moment                newest state then")
        for number in range(KILLS):
            running = worker.start()
            if number in early:
                seconds, where = draw.uniform(0, whole - training), "of the start"
            else:
                wait_for(lambda: '"note"' in running.output or running.process.poll() is not None, lambda: running.output)  # noqa: B023
                seconds, where = draw.uniform(0, 0.15 * training), "of training"
            time.sleep(seconds)
            assert running.process.poll() is None, f"the worker ended before kill {number + 1}: {running.output[-2000:]}"
            running.process.kill()
            assert running.process.wait() == -signal.SIGKILL
            print(f"{number + 1:4}  {seconds:5.2f} s {where}  {(worker.states() or ['none'])[-1]}", flush=True)
        artifact = worker.finish()
        print(f"then from step {artifact.manifest.statistics['resumed_from_step']} to the end: {len(made(artifact))} files compared")
    assert 0 < artifact.manifest.statistics["resumed_from_step"] < STEPS
    assert made(artifact) == made(expected)
    assert {"checkpoint/model.safetensors", f"checkpoint-{STEPS // 3}/model.safetensors", "training_log.jsonl"} <= made(artifact).keys()


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> SmallStore:
    return with_mixture(tmp_path_factory.mktemp("processes"), STEPS)


@pytest.fixture
def job(small: SmallStore, tmp_path: Path) -> Callable[..., TrainingJob]:
    """A job over the small store's mixture, in float32."""

    def build(name: str, num_processes: int, steps: int, state: str | None = None, **changes: object) -> TrainingJob:
        (tmp_path / name).mkdir()
        training = TrainingExecution(num_processes=num_processes, micro_batch_tokens=256, save_seconds=0.0)
        fields = {
            "model": SHAPE,
            "seed": 0,
            "tokenizer": small.local("tokenizer") / "tokenizer",
            "data": MixtureData(
                folder=small.local("vanilla/tokenized_mixture"), sources=(("tokenized_raw", "shard", small.local("tokenized_raw")),)
            ),
            "sequence_length": 64,
            "optimization": optimization(steps, dtype="float32"),
            "execution": Execution(num_threads=num_processes, training=training),
            "out": tmp_path / name,
            "state_folder": None if state is None else tmp_path / state,
        }
        return TrainingJob(**{**fields, **changes})

    return build


def losses(folder: Path) -> list[float]:
    return [line.loss for line in read_log(folder)]


def furthest(one: Path, other: Path) -> float:
    """The largest difference of two checkpoints' weights."""
    weights = [load_file(folder / "checkpoint/model.safetensors") for folder in (one, other)]
    return max((weights[0][name].float() - weights[1][name].float()).abs().max().item() for name in weights[0])


def test_two_processes_have_the_losses_of_one_over_fifty_steps(job, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in (1, 2):
        assert run(job(str(number), number, 50), lambda _: None)["num_processes"] == number
    one, two = losses(tmp_path / "1"), losses(tmp_path / "2")
    difference = max(abs(a - b) for a, b in zip(one, two, strict=True))
    with capsys.disabled():
        print(f"\ntwo processes against one, 50 steps: loss {one[0]:.4f} to {one[-1]:.4f}, largest difference {difference:.1e}")
    assert difference < 1e-4 and one[-1] < one[0] - 1


def reached(state: Path) -> bool:
    return max((int(path.name.removeprefix("step-")) for path in state.glob("step-*")), default=0) >= 20


def kill_when_saved(mark: str, state: Path, moment: dict[str, float]) -> None:
    """SIGKILL one of the training's processes when there is a state."""
    wait_for(lambda: reached(state), lambda: "no state was saved")
    ranks = [pid for pid, command in marked_processes(mark).items() if "training.launch" in command and "distributed.run" not in command]
    moment["ranks"], moment["killed"] = len(ranks), time.monotonic()
    os.kill(max(ranks), signal.SIGKILL)


@pytest.mark.parametrize("processes", [(2, 2), (2, 1), (1, 2)])
def test_a_training_goes_on_with_the_same_data_when_it_is_cut_whatever_the_processes(
    job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], processes: tuple[int, int]
) -> None:
    """Of two processes one is killed; one alone is terminated. The rerun has as many processes as the second number says."""
    steps = 200
    run(job("whole", 1, steps), lambda _: None)
    cut = job("cut", processes[0], steps, "state")
    told = ""
    if processes[0] == 2:
        mark, moment = f"of {tmp_path.name}", dict[str, float]()
        monkeypatch.setenv(MARK, mark)  # what this process starts inherits it; its own environment, as others see it, does not change
        killer = threading.Thread(target=kill_when_saved, args=(mark, tmp_path / "state", moment))
        killer.start()
        with pytest.raises(TrainingFailed, match="a process of the training ended without a word, and the others lost it"):
            run(cut, lambda _: None)
        seconds = time.monotonic() - moment["killed"]
        killer.join()
        assert moment["ranks"] == 2 and seconds < 30
        assert not marked_processes(mark)
        told = f"one of two killed: the run ended {seconds:.1f} s later; "
    else:
        file = tmp_path / "job.json"
        file.write_text(cut.model_dump_json())
        process = subprocess.Popen([sys.executable, "-c", TRAIN_ALONE, str(file)])
        wait_for(lambda: reached(tmp_path / "state"), lambda: "no state was saved")
        process.terminate()
        assert process.wait(60) == 128 + signal.SIGTERM
    statistics = run(job("again", processes[1], steps, "state"), lambda _: None)
    assert 0 < statistics["resumed_from_step"] < steps and statistics["num_processes"] == processes[1]
    difference = max(abs(a - b) for a, b in zip(losses(tmp_path / "whole"), losses(tmp_path / "again"), strict=True))
    with capsys.disabled():
        from_step = statistics["resumed_from_step"]
        print(f"\n{processes[0]} -> {processes[1]}: {told}resumed from step {from_step}, largest difference of losses {difference:.1e}")
    assert difference < 1e-4
    assert furthest(tmp_path / "whole", tmp_path / "again") < 0.05


TRAIN_ALONE = """
import sys
from pathlib import Path
from instpt_assets.training.job import TrainingJob
from instpt_assets.training.launch import run
run(TrainingJob.model_validate_json(Path(sys.argv[1]).read_text()), lambda _: None)
"""


@pytest.mark.parametrize("supervised", [True, False])
def test_two_processes_save_their_state_when_the_run_is_cancelled(
    job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, supervised: bool
) -> None:
    monkeypatch.setenv(MARK, tmp_path.name)
    execution = Execution(num_threads=2, training=TrainingExecution(num_processes=2, micro_batch_tokens=256, save_seconds=3600.0))
    file = tmp_path / "job.json"
    file.write_text(job("out", 2, STEPS, "state", execution=execution).model_dump_json())
    command = [sys.executable, "-c", TRAIN_ALONE, str(file)]
    supervisor = [sys.executable, "-m", "instpt_assets.workers.supervisor", "60"] if supervised else []
    process = subprocess.Popen([*supervisor, *command], stdin=subprocess.PIPE)
    wait_for(lambda: (tmp_path / "state/logs").exists(), lambda: "it does not begin")
    time.sleep(3)
    if supervised:
        assert process.stdin is not None
        process.stdin.close()  # as when the run is gone
    else:
        process.terminate()
    assert process.wait(60) in (128 + signal.SIGTERM, 128)
    assert not marked_processes(tmp_path.name)
    (state,) = (tmp_path / "state").glob("step-*")
    assert is_intact(state)


def test_all_processes_of_a_training_that_diverges_end(job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MARK, "diverging")
    diverging = job("out", 2, 10, optimization=optimization(10, learning_rate=1e38, warmup_steps=0, dtype="float32"))
    begun = time.monotonic()
    with pytest.raises(TrainingFailed, match=r"^step 2: loss nan.* each of its 8 sequences alone is not finite.* d\d+ "):
        run(diverging, lambda _: None)
    assert time.monotonic() - begun < 120 and not marked_processes("diverging")
