import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch.distributed.checkpoint as dcp

from instpt_assets.store.sealed import is_intact
from instpt_assets.training.model import build_model
from instpt_assets_tests.training.tiny import SHAPE, VOCAB_SIZE, CountingSource, contents, optimization


@pytest.fixture(autouse=True)
def save_every_step(monkeypatch):
    monkeypatch.setattr("instpt_assets.training.keeper._SAVING_SHARE", math.inf)


def sealed_names(state: Path) -> set[str]:
    """What lies in the folder of states, its live log aside."""
    return {path.name for path in state.iterdir()} - {"logs"}


class Interrupted(Exception):
    pass


class InterruptedSource(CountingSource):
    """Fails when the sequences of one step are read for training."""

    def __init__(self, at_step: int) -> None:
        super().__init__()
        self.reads, self.at_step = 0, at_step

    def sequence(self, index):
        self.reads += 1
        if self.reads > 48 and index >= self.at_step * 6:
            raise Interrupted
        return super().sequence(index)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_interrupted_training_ends_in_the_same_bytes(run, tmp_path, dtype):
    recipe = optimization(dtype=dtype)
    _, whole = run("whole", recipe=recipe, checkpoint_steps=[3])
    state = tmp_path / "state"
    with pytest.raises(Interrupted):
        run("cut", recipe=recipe, checkpoint_steps=[3], state_folder=state, save_seconds=0.0, source=InterruptedSource(5))
    said = []
    statistics, resumed = run("resumed", recipe=recipe, checkpoint_steps=[3], state_folder=state, save_seconds=0.0, progress=said.append)
    assert statistics["resumed_from_step"] == 5
    assert said[0]["note"] == "goes on after step 5 of 8"
    assert contents(resumed) == contents(whole)


def test_dropout_of_a_resumed_training_is_that_of_an_undisturbed_one(run, tmp_path):
    def model():
        built = build_model(SHAPE, VOCAB_SIZE, seed=1, bos_token_id=1, eos_token_id=2, pad_token_id=0)
        for layer in built.model.layers:
            layer.self_attn.attention_dropout = 0.3
        return built

    state = tmp_path / "state"
    whole = contents(run("whole", model=model(), seed=5)[1])
    with pytest.raises(Interrupted):
        run("cut", model=model(), seed=5, state_folder=state, save_seconds=0.0, source=InterruptedSource(5))
    statistics, resumed = run("resumed", model=model(), seed=5, state_folder=state)
    assert statistics["resumed_from_step"] == 5 and contents(resumed) == whole
    assert contents(run("other", model=model(), seed=6)[1]) != whole != contents(run("without")[1])


def test_another_machine_goes_on_from_the_state_on_s3(run, tmp_path, s3_store):
    url = f"{s3_store.url}/_progress/arm"
    with pytest.raises(Interrupted):
        run("cut", state_folder=tmp_path / "one", state_url=url, save_seconds=0.0, checkpoint_steps=[2], source=InterruptedSource(5))
    names = {path.rsplit("/", 1)[-1] for path in s3_store.fs.ls(s3_store.path("_progress", "arm"), refresh=True)}
    assert names == {"checkpoint-2", "step-00000005"}
    statistics, resumed = run("resumed", state_folder=tmp_path / "two", state_url=url, checkpoint_steps=[2])
    assert statistics["resumed_from_step"] == 5
    assert contents(resumed) == contents(run("whole", checkpoint_steps=[2])[1])


def test_damaged_state_is_not_read(run, tmp_path):
    state = tmp_path / "state"
    with pytest.raises(Interrupted):
        run("cut", state_folder=state, save_seconds=0.0, source=InterruptedSource(5))
    (saved,) = state.glob("step-*")
    metadata = saved / ".metadata"
    metadata.write_bytes(b"cos\nsystem\n(S'false'\ntR." + metadata.read_bytes())
    statistics, resumed = run("resumed", state_folder=state)
    assert statistics["resumed_from_step"] == 0
    assert contents(resumed) == contents(run("whole")[1])


def test_state_without_its_checkpoint_is_not_used(run, tmp_path):
    state = tmp_path / "state"
    with pytest.raises(Interrupted):
        run("cut", state_folder=state, save_seconds=0.0, checkpoint_steps=[2], source=InterruptedSource(5))
    (state / "checkpoint-2/model.safetensors").write_bytes(b"")
    statistics, resumed = run("resumed", state_folder=state, checkpoint_steps=[2])
    assert statistics["resumed_from_step"] == 0
    assert (resumed / "checkpoint-2/model.safetensors").stat().st_size > 0


def test_state_of_another_training_is_left_alone(run, tmp_path):
    state = tmp_path / "state"
    with pytest.raises(Interrupted):
        run("cut", state_folder=state, save_seconds=0.0, source=InterruptedSource(5))
    statistics, _ = run("other", state_folder=state, recipe=optimization(learning_rate=0.02))
    assert statistics["resumed_from_step"] == 0


def test_sigterm_saves_the_step_in_progress(run, tmp_path):
    class TerminatedSource(InterruptedSource):
        def sequence(self, index):
            try:
                return super().sequence(index)
            except Interrupted:
                os.kill(os.getpid(), signal.SIGTERM)
                self.at_step = 1000
                return super().sequence(index)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as exit_:
        run("cut", state_folder=tmp_path / "state", save_seconds=3600.0, source=TerminatedSource(4))
    assert exit_.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is before
    statistics, resumed = run("resumed", state_folder=tmp_path / "state")
    assert 0 < statistics["resumed_from_step"] < 8  # sequences are read ahead
    assert contents(resumed) == contents(run("whole")[1])


def test_two_runs_of_one_training_leave_a_state_that_is_continued(run, tmp_path, monkeypatch):
    state = tmp_path / "state"
    save = dcp.save

    def save_beside_another_run(*arguments, **named):
        monkeypatch.setattr(dcp, "save", save)
        save(*arguments, **named)
        # The first run's first step is written and not sealed yet: the other saves the same step and later ones.
        with pytest.raises(Interrupted):
            run("other", checkpoint_steps=[1], state_folder=state, save_seconds=0.0, source=InterruptedSource(3))

    monkeypatch.setattr(dcp, "save", save_beside_another_run)
    with pytest.raises(Interrupted):
        run("first", checkpoint_steps=[1], state_folder=state, save_seconds=0.0, source=InterruptedSource(2))
    assert sealed_names(state) == {"checkpoint-1", "step-00000002", "step-00000003"}
    assert all(is_intact(state / name) for name in sealed_names(state))
    statistics, resumed = run("resumed", checkpoint_steps=[1], state_folder=state)
    assert statistics["resumed_from_step"] == 3
    assert contents(resumed) == contents(run("whole", checkpoint_steps=[1])[1])


def test_what_a_killed_run_was_writing_goes_when_it_is_old(run, tmp_path):
    left, fresh = tmp_path / "state/.writing-left", tmp_path / "state/.writing-fresh"
    for folder in (left, fresh):
        folder.mkdir(parents=True)
        (folder / "weights").write_text("half")
    for path in (left / "weights", left, fresh):
        os.utime(path, (0, 0))
    with pytest.raises(Interrupted):
        run("cut", state_folder=tmp_path / "state", save_seconds=0.0, source=InterruptedSource(2))
    assert sealed_names(tmp_path / "state") == {".writing-fresh", "step-00000002"}


SLOW_TRAINING = """
import sys, time
from pathlib import Path
import torch
from instpt_assets.recipe.execution import TrainingExecution
from instpt_assets.training.loop import train
from instpt_assets.training.model import build_model
from instpt_assets_tests.training.tiny import LENGTH, SHAPE, VOCAB_SIZE, CountingSource, optimization

class SlowSource(CountingSource):
    def sequence(self, index):
        time.sleep(0.02)
        return super().sequence(index)

torch.set_num_threads(1)
folder = Path(sys.argv[1])
(folder / "killed").mkdir()
model = build_model(SHAPE, VOCAB_SIZE, seed=1, bos_token_id=1, eos_token_id=2, pad_token_id=0)
train(model, SlowSource(), optimization(), TrainingExecution(micro_batch_tokens=4 * LENGTH), out=folder / "killed",
      state_folder=folder / "state", save_seconds=0.0)
"""


@pytest.mark.slow
def test_training_killed_at_any_moment_ends_in_the_same_bytes(run, tmp_path):
    process = subprocess.Popen([sys.executable, "-c", SLOW_TRAINING, str(tmp_path)])
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("state/step-*")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    statistics, resumed = run("resumed", state_folder=tmp_path / "state")
    assert 0 < statistics["resumed_from_step"] < 8
    assert contents(resumed) == contents(run("whole")[1])
