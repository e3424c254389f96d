"""Batches that a thread prepares: the same ones in the same order, errors in their place, and no thread left behind."""

import threading
import time
from collections.abc import Iterator

import pytest
import torch

from instpt_assets.training.batches import Plan, StepBatch
from instpt_assets.training.prefetch import batches
from instpt_assets_tests.training.tiny import LENGTH, VOCAB_SIZE, CountingSource

PLAN = Plan(num_steps=8, step_sequences=6)


def prepared(source: CountingSource, first_step: int = 0, *, rank: int = 0, num_processes: int = 1) -> Iterator[StepBatch]:
    return batches(source, PLAN, first_step, rank=rank, num_processes=num_processes, vocab_size=VOCAB_SIZE)


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "batches"]


def test_the_batches_are_those_of_the_steps_in_order() -> None:
    for rank in range(2):
        found = list(prepared(CountingSource(), 3, rank=rank, num_processes=2))
        assert len(found) == 5
        for step, batch in enumerate(found, start=3):
            own = StepBatch(CountingSource(), step * 6, 6, rank=rank, num_processes=2, vocab_size=VOCAB_SIZE)
            for one, other in zip(batch.micro_batches(2 * LENGTH, "cpu"), own.micro_batches(2 * LENGTH, "cpu"), strict=True):
                assert torch.equal(one.input_ids, other.input_ids) and torch.equal(one.targets, other.targets)
    assert not threads()


class Broken(CountingSource):
    def sequence(self, index):
        if index == 4 * 6 + 1:
            raise OSError("the disk is gone")
        return super().sequence(index)


def test_what_goes_wrong_is_raised_at_its_step_and_not_before() -> None:
    given = prepared(Broken())
    for _ in range(4):
        next(given)
        time.sleep(0.01)
    with pytest.raises(OSError, match="the disk is gone"):
        next(given)
    assert not threads()


class Counted(CountingSource):
    """Counts what was read."""

    reads = 0

    def sequence(self, index):
        self.reads += 1
        return super().sequence(index)


def test_two_steps_are_read_while_one_is_computed_and_closing_ends_the_thread() -> None:
    source = Counted()
    given = prepared(source)
    next(given)
    deadline = time.monotonic() + 5
    while source.reads < 3 * 6 and time.monotonic() < deadline:
        time.sleep(0.005)
    time.sleep(0.05)
    assert source.reads == 3 * 6
    given.close()
    assert not threads()
