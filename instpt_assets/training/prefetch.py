"""Batches before they are asked for: a thread reads the next steps' sequences while the model works on this one's."""

import queue
import threading
from collections.abc import Generator

from instpt_assets.mixture.sequences import SequenceSource
from instpt_assets.training.batches import Plan, StepBatch

_AHEAD = 2
"""Steps that are kept ready."""


def batches(
    source: SequenceSource, plan: Plan, first_step: int, *, rank: int, num_processes: int, vocab_size: int
) -> Generator[StepBatch, None, None]:
    """One process's share of each step, in order, prepared by a thread; closing the generator ends the thread.

    What goes wrong while a step is prepared is raised when that step is asked for, not before.

    Args:
        source: the sequences; the thread alone reads them.
        plan: how they become steps.
        first_step: the first step to give, counted from 0; then all that follow.
        rank: this process.
        num_processes: of so many.
        vocab_size: of the model.
    """
    ready: queue.Queue[StepBatch | BaseException] = queue.Queue()
    room = threading.Semaphore(_AHEAD)
    closed = threading.Event()

    def prepare() -> None:
        for step in range(first_step, plan.num_steps):
            room.acquire()
            if closed.is_set():
                return
            first, count = step * plan.step_sequences, plan.step_sequences
            try:
                ready.put(StepBatch(source, first, count, rank=rank, num_processes=num_processes, vocab_size=vocab_size))
            except BaseException as error:
                ready.put(error)
                return

    thread = threading.Thread(target=prepare, name="batches", daemon=True)
    thread.start()
    try:
        for _ in range(first_step, plan.num_steps):
            batch = ready.get()
            room.release()
            if isinstance(batch, BaseException):
                raise batch
            yield batch
    finally:
        closed.set()
        room.release()
        thread.join()
