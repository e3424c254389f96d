"""What a person reads of a run's progress, and how many events it leaves."""

from typing import Any

import dagster as dg
import pytest

from instpt_assets.defs import progress
from instpt_assets.defs.progress import OBSERVE_SECONDS, Progress, duration

MESSAGE: dict[str, Any] = {
    "kind": "progress",
    "asset": "synthesized/instruction_pairs",
    "stage": "generating",
    "partition": "notes--a",
    "passages_done": 1240,
    "passages_total": 5600,
    "reused": 0,
    "completion_tokens_per_second": 5400.4,
    "seconds_left": 850.0,
}


class Recorder:
    """Stands for the step's context."""

    def __init__(self) -> None:
        self.log = self
        self.lines: list[str] = []
        self.events: list[dg.AssetObservation] = []

    def info(self, line: str) -> None:
        self.lines.append(line)

    def log_event(self, event: dg.AssetObservation) -> None:
        self.events.append(event)


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


def test_a_line_tells_what_is_done_how_fast_and_how_long_it_takes(recorder: Recorder) -> None:
    shown = Progress(recorder)  # type: ignore[arg-type]
    shown.tell(MESSAGE)
    shown.tell({**MESSAGE, "reused": 300, "seconds_left": 40})
    shown.tell({**MESSAGE, "passages_total": None, "seconds_left": None})
    shown.tell({"kind": "progress", "asset": "synthesized/instruction_pairs", "stage": "starting the engine"})
    shown.tell({"kind": "progress", "asset": "vanilla/eval_scores", "partition": "seed-0", "examples": 12, "accuracy": 3.14159})
    assert recorder.lines == [
        "synthesized/instruction_pairs: 1,240 of 5,600 passages, 5,400 tokens/s, 14 min left",
        "synthesized/instruction_pairs: 1,240 of 5,600 passages, 300 reused, 5,400 tokens/s, 40 s left",
        "synthesized/instruction_pairs: 1,240 passages, 5,400 tokens/s",
        "synthesized/instruction_pairs: starting the engine",
        "vanilla/eval_scores/seed-0: examples 12, accuracy 3.142",
    ]
    assert [duration(seconds) for seconds in (59.4, 60, 3599, 3600, 11100)] == ["59 s", "1 min", "1 h 00 min", "1 h 00 min", "3 h 05 min"]


def test_events_are_rarer_than_lines(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = 1000.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: seconds)
    shown = Progress(recorder)  # type: ignore[arg-type]
    for _ in range(12):
        shown.tell(MESSAGE)
        seconds += OBSERVE_SECONDS / 3
    assert len(recorder.lines) == 12 and len(recorder.events) == 4
    event = recorder.events[0]
    # Of the asset: the last observation of a partition tells whether it failed.
    assert event.asset_key == dg.AssetKey(["synthesized", "instruction_pairs"]) and event.partition is None
    metadata = {name: value.value for name, value in event.metadata.items()}
    assert metadata["progress"] == recorder.lines[0] and metadata["passages_done"] == 1240 and metadata["partition"] == "notes--a"
    shown.tell({"kind": "progress", "asset": "synthesized/instruction_pairs", "stage": "starting the engine"})
    assert len(recorder.events) == 4


STEP: dict[str, Any] = {
    "kind": "progress",
    "asset": "vanilla/pretrained_checkpoint",
    "partition": "seed-0",
    "step": 1200,
    "num_steps": 5600,
    "loss": 2.91432,
    "learning_rate": 2.7e-4,
    "gradient_norm": 0.4127,
    "tokens_per_second": 560123.4,
    "data_wait_share": 0.0012,
    "seconds_left": 850.0,
}


def test_a_trainings_line_tells_what_is_known(recorder: Recorder) -> None:
    shown = Progress(recorder)  # type: ignore[arg-type]
    shown.tell(STEP)
    shown.tell({**STEP, "asset": "instruction_synthesizer", "partition": "all", "held_out_loss": 2.95, "mfu": 0.412, "peak_gpu_gib": 61.25})
    shown.tell({**STEP, "step": 5600, "data_wait_share": 0.2, "seconds_left": 0.0})
    assert recorder.lines == [
        "vanilla/pretrained_checkpoint/seed-0: step 1,200 of 5,600, loss 2.914, learning rate 0.00027, gradient norm 0.41, "
        "560,123 tokens/s, 14 min left",
        "instruction_synthesizer: step 1,200 of 5,600, loss 2.914, held out 2.950, learning rate 0.00027, gradient norm 0.41, "
        "560,123 tokens/s, 41% MFU, 61.2 GiB on the GPU at most, 14 min left",
        "vanilla/pretrained_checkpoint/seed-0: step 5,600 of 5,600, loss 2.914, learning rate 0.00027, gradient norm 0.41, "
        "560,123 tokens/s, 20% of the time waiting for data",
    ]


def test_lines_and_events_of_a_long_training_become_rarer_but_its_last_step_is_told(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = 1000.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: seconds)
    shown = Progress(recorder)  # type: ignore[arg-type]
    counts = {}
    for ten_seconds in range(3 * 24 * 360):
        shown.tell({**STEP, "step": ten_seconds, "num_steps": 10**6})
        seconds += 10
        if ten_seconds + 1 in (30, 360, 24 * 360, 3 * 24 * 360):
            counts[ten_seconds + 1] = len(recorder.lines), len(recorder.events)
    shown.tell({**STEP, "step": STEP["num_steps"]})
    # Five minutes, an hour, a day, three days.
    assert counts[30] == (30, 10) and counts[360][0] > 150
    assert counts[24 * 360][0] < 700 and counts[3 * 24 * 360][0] < 1400 and counts[3 * 24 * 360][1] < 1200
    assert "step 5,600 of 5,600" in recorder.lines[-1] and len(recorder.lines) == counts[3 * 24 * 360][0] + 1
    metadata = {name: value.value for name, value in recorder.events[0].metadata.items()}
    assert recorder.events[0].partition is None and metadata["loss"] == STEP["loss"] and metadata["partition"] == "seed-0"
