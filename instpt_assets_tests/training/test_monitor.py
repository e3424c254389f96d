"""What is seen of a training while it runs and afterwards: progress, event files, Weights & Biases."""

import json
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from wandb.proto import wandb_internal_pb2 as wandb_records

from instpt_assets.recipe.execution import TrainingExecution
from instpt_assets.training import event_files, monitor
from instpt_assets.training.flops import flops_per_token
from instpt_assets.training.log import LogLine, read_times
from instpt_assets.training.loop import train
from instpt_assets.training.model import build_model
from instpt_assets.training.model_card import Card
from instpt_assets.training.monitor import Monitor
from instpt_assets.training.weights_and_biases import is_set_up
from instpt_assets_tests.training.tiny import LENGTH, SHAPE, VOCAB_SIZE, CountingSource, contents, optimization

CARD = Card(
    name="vanilla seed-0", kind="pretrained", asset="vanilla/pretrained_checkpoint", partition="seed-0", identity="f00d", recipe={"a": 1}
)


def line(step: int, loss: float = 2.0, held_out_loss: float | None = None) -> LogLine:
    return LogLine(step, loss, 1e-3, 0.5, 100 * step, 100, held_out_loss)


def watch(out: Path, said: list[dict[str, Any]] | None = None, *, num_steps: int = 8, **fields: Any) -> Monitor:
    return Monitor([].append if said is None else said.append, num_steps=num_steps, batch_tokens=100, out=out, **fields)  # type: ignore[arg-type]


def scalars(folder: Path, name: str) -> list[tuple[int, float]]:
    events = EventAccumulator(str(folder))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(name)] if name in events.Tags()["scalars"] else []


def test_speed_is_that_of_the_last_steps_and_not_of_the_start(tmp_path, monkeypatch):
    monkeypatch.setattr(monitor, "PROGRESS_SECONDS", 0.0)
    said: list[dict[str, Any]] = []
    with watch(tmp_path, said, num_steps=40, peak_tokens_per_second=1000.0) as seen:
        for step in range(1, 41):
            # A slow start, then 0.5 s a step, 2 s in the end; a tenth of it waiting.
            seconds = 60.0 if step < 4 else 0.5 if step < 10 else 2.0
            seen.record(line(step, held_out_loss=3.0 if step == 20 else None), seconds=seconds, waited=seconds / 10)
    steps = {message["step"]: message for message in said if "step" in message}
    assert steps[5]["tokens_per_second"] == 200 and steps[5]["mfu"] == 0.2
    assert steps[40]["tokens_per_second"] == 50 and steps[40]["data_wait_share"] == 0.1
    assert steps[39]["seconds_left"] == 2.0 and "held_out_loss" not in steps[19] and steps[30]["held_out_loss"] == 3.0
    statistics = seen.finish()
    assert statistics["tokens_per_second"] == round(37 * 100 / (6 * 0.5 + 31 * 2.0), 1)
    assert statistics["training_seconds"] == 3 * 60 + 6 * 0.5 + 31 * 2 and statistics["final_held_out_loss"] == 3.0


def test_event_files_are_read_while_the_training_runs_and_hold_no_step_twice_after_a_kill(tmp_path, monkeypatch):
    monkeypatch.setattr(event_files, "_FLUSH_SECONDS", 0.1)
    out, state = tmp_path / "out", tmp_path / "state"
    killed = watch(out, state_folder=state, lines=[])
    for step in range(1, 7):
        killed.record(line(step, loss=10.0 + step, held_out_loss=7.0 if step == 3 else None), seconds=1.0)
    folder = state / "logs" / "tensorboard"
    deadline = time.monotonic() + 10
    while len(scalars(folder, "loss/training")) < 6 and time.monotonic() < deadline:
        killed.record(line(6), seconds=1.0)
        time.sleep(0.2)
    assert [step for step, _ in scalars(folder, "loss/training")][:6] == [1, 2, 3, 4, 5, 6]

    with watch(out, state_folder=state, lines=[line(step, loss=10.0 + step) for step in range(1, 5)]) as resumed:
        for step in range(5, 9):
            resumed.record(line(step, loss=20.0 + step), seconds=2.0)
    resumed.finish()
    kept = out / "logs" / "tensorboard"
    assert scalars(kept, "loss/training") == [
        *[(step, 10.0 + step) for step in range(1, 5)],
        *[(step, 20.0 + step) for step in range(5, 9)],
    ]
    assert scalars(kept, "loss/held_out") == [(3, 7.0)]
    assert {step for step, _ in scalars(kept, "speed/tokens_per_second")} == set(range(1, 9))
    assert contents(out) == {}, "everything with times lies among the logs"


def test_a_training_with_a_minute_to_go_tells_once_how_to_watch_it(tmp_path, monkeypatch):
    monkeypatch.setattr(monitor, "PROGRESS_SECONDS", 0.0)
    monkeypatch.chdir(tmp_path)
    notes = {}
    for seconds in (1.0, 20.0):
        said: list[dict[str, Any]] = []
        with watch(tmp_path / "out", said) as seen:
            for step in range(1, 9):
                seen.record(line(step), seconds=seconds)
        notes[seconds] = [message["note"] for message in said if "note" in message]
    assert notes == {1.0: [], 20.0: ["to watch it: tensorboard --logdir out/logs/tensorboard"]}


def test_times_of_steps_before_a_kill_count(tmp_path):
    state = tmp_path / "state"
    with watch(tmp_path / "a", state_folder=state) as killed:
        for step in range(1, 7):
            killed.record(line(step), seconds=1.0)
    (state / "logs" / "training_times.jsonl").open("a").write('{"step": 7, "sec')  # cut short
    with watch(tmp_path / "b", state_folder=state, lines=[line(step) for step in range(1, 5)]) as resumed:
        for step in range(5, 9):
            resumed.record(line(step), seconds=3.0)
    assert resumed.finish()["training_seconds"] == 4 * 1.0 + 4 * 3.0
    assert [time.step for time in read_times(tmp_path / "b" / "logs")] == list(range(1, 9))


def test_steps_of_which_no_event_file_is_left_are_written_from_the_log(tmp_path):
    with watch(tmp_path, lines=[line(step) for step in range(1, 5)]) as resumed:
        resumed.record(line(5), seconds=1.0)
    assert [step for step, _ in scalars(tmp_path / "logs" / "tensorboard", "loss/training")] == [1, 2, 3, 4, 5]


def test_a_training_tells_what_share_of_a_given_peak_it_reaches(tmp_path):
    model = build_model(SHAPE, VOCAB_SIZE, seed=1, bos_token_id=1, eos_token_id=2, pad_token_id=0)
    operations = flops_per_token(model, LENGTH)
    execution = TrainingExecution(micro_batch_tokens=4 * LENGTH, peak_tflops=0.01)
    statistics = train(model, CountingSource(), optimization(), execution, out=tmp_path)
    assert statistics["mfu"] == pytest.approx(statistics["tokens_per_second"] * operations / 0.01e12, abs=1e-4)
    assert scalars(tmp_path / "logs" / "tensorboard", "speed/mfu")[-1][0] == 8


def test_without_the_package_tensorboard_it_is_said_once(tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("torch.utils.tensorboard")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    said: list[dict[str, Any]] = []
    with watch(tmp_path, said) as seen:
        for step in range(1, 9):
            seen.record(line(step), seconds=1.0)
    assert seen.finish()["tokens_per_second"] == 100
    assert ["no TensorBoard" in message.get("note", "") for message in said] == [True, False]


def test_weights_and_biases_is_used_only_where_it_is_set_up(tmp_path, monkeypatch):
    def used(netrc: str = "", **variables: str) -> bool:
        (tmp_path / "netrc").write_text(netrc)
        with pytest.MonkeyPatch.context() as patch:
            for name, value in {"NETRC": str(tmp_path / "netrc"), "WANDB_MODE": "", **variables}.items():
                patch.setenv(name, value)
            return is_set_up()

    login = "machine api.wandb.ai login user password 0123456789\n"
    assert not used()
    assert used(WANDB_API_KEY="k") and used(login) and used(WANDB_MODE="offline")
    assert not used(login, WANDB_MODE="disabled") and not used(WANDB_API_KEY="k", WANDB_DISABLED="true")
    assert not used(login, WANDB_BASE_URL="https://wandb.example.org")
    # A folder of its runs is no package.
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    (tmp_path / "wandb").mkdir()
    assert not used(WANDB_MODE="offline")


def test_a_run_of_weights_and_biases_goes_on_after_a_kill(tmp_path, monkeypatch):
    for name, value in {"WANDB_MODE": "offline", "WANDB_PROJECT": "mine"}.items():
        monkeypatch.setenv(name, value)
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    said: list[dict[str, Any]] = []
    monkeypatch.setenv("WANDB_DIR", str(tmp_path / "a"))
    with watch(tmp_path / "out", said, card=CARD, state_folder=tmp_path / "state") as seen:
        seen.record(line(1, loss=4.0), seconds=1.0)
    monkeypatch.setenv("WANDB_DIR", str(tmp_path / "b"))  # runs of the same second have the same folder
    with watch(tmp_path / "out", said, card=CARD, state_folder=tmp_path / "state", lines=[line(1, loss=4.0)]) as seen:
        seen.record(line(2, loss=3.0), seconds=1.0)
    starts, losses = [], []
    for path in sorted(tmp_path.glob("*/wandb/offline-run-*/run-*.wandb")):
        for record in wandb_file(path):
            if record.HasField("run"):
                config = {item.key: json.loads(item.value_json) for item in record.run.config.update}
                starts.append((record.run.run_id, record.run.project, record.run.display_name, config["recipe"], record.run.resumed))
            if record.HasField("history"):
                values = {item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
                losses.append((record.history.step.num, values["loss/training"]))
    assert {start[:3] for start in starts} == {("f00d", "mine", "vanilla seed-0")} and starts[0][3] == {"a": 1}
    assert losses == [(1, 4.0), (2, 3.0)]
    assert sum("in Weights & Biases: " in message.get("note", "") for message in said) == 2


def test_trouble_with_weights_and_biases_stops_no_training(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setattr("wandb.init", lambda **_: (_ for _ in ()).throw(OSError("no room")))
    said: list[dict[str, Any]] = []
    with watch(tmp_path, said, card=CARD) as seen:
        seen.record(line(1), seconds=1.0)
    assert [message["note"] for message in said if "Biases" in message.get("note", "")] == ["not in Weights & Biases: OSError: no room"]
    assert scalars(tmp_path / "logs" / "tensorboard", "loss/training") == [(1, 2.0)]


def wandb_file(path: Path) -> Iterator[Any]:
    """The records of a `.wandb` file: 7 bytes, then LevelDB's log format, of which a short file is one block."""
    data, position, whole = path.read_bytes(), 7, b""
    while position + 7 <= min(len(data), 32768):
        _, length, kind = struct.unpack_from("<IHB", data, position)
        whole += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # complete, or its last part
            record = wandb_records.Record()
            record.ParseFromString(whole)
            yield record
            whole = b""
