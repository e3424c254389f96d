"""From a source of sequences to the batches of a step, the same whatever the number of processes."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from instpt_assets.recipe.training import Optimization

NO_LOSS = -100
_CHECKED_SEQUENCES = 256

Ints = npt.NDArray[np.int64]


class SequenceSource(Protocol):
    """Sequences in training order."""

    sequence_length: int

    def __len__(self) -> int: ...

    def sequence(self, index: int) -> tuple[Ints, Ints]:
        """Token ids [sequence_length] and labels [sequence_length]: not shifted, -100 where there is no loss."""
        ...


@dataclass(frozen=True)
class Plan:
    """How the token budget becomes steps."""

    num_steps: int
    """Optimizer steps."""
    step_sequences: int
    """Sequences a step, over all processes."""


def plan_steps(source: SequenceSource, optimization: Optimization, *, max_positions: int, vocab_size: int) -> Plan:
    """Check the data against budget and model before the first step.

    Raises:
        ValueError: a step is no whole number of sequences, there are too few sequences, they are longer than the model's window, or
            hold tokens that the model does not know.
    """
    length = source.sequence_length
    if optimization.batch_tokens % length:
        raise ValueError(f"batch_tokens {optimization.batch_tokens} is no multiple of sequence_length {length}")
    plan = Plan(optimization.num_steps, optimization.batch_tokens // length)
    needed = plan.num_steps * plan.step_sequences
    if len(source) < needed:
        raise ValueError(f"{plan.num_steps} steps of {plan.step_sequences} sequences need {needed} sequences; the data has {len(source)}")
    if length > max_positions:
        raise ValueError(f"sequence_length {length} is longer than the model's window of {max_positions} tokens (max_position_embeddings)")
    for index in range(0, needed, -(-needed // _CHECKED_SEQUENCES)):
        read_sequence(source, index, vocab_size)
    return plan


def read_sequence(source: SequenceSource, index: int, vocab_size: int) -> tuple[Ints, Ints]:
    """Token ids and labels [sequence_length] of one sequence.

    Raises:
        ValueError: a token is outside the model's vocabulary.
    """
    ids, labels = source.sequence(index)
    low, high = int(ids.min()), int(ids.max())
    if low < 0 or high >= vocab_size:
        raise ValueError(
            f"sequence {index} holds token {high if high >= vocab_size else low}, but the model's vocabulary has {vocab_size}: "
            "the data was tokenized with another tokenizer than the model's"
        )
    return ids, labels


@dataclass(frozen=True)
class MicroBatch:
    """One forward and backward pass of one process."""

    input_ids: torch.Tensor
    """int64 [rows, sequence_length]"""
    positions: torch.Tensor
    """int64 [n]: of the flattened hidden states [rows * sequence_length], those whose next token has loss."""
    targets: torch.Tensor
    """int64 [n]: those next tokens."""


class StepBatch:
    """One process's share of a step's sequences.

    Every process makes as many passes as the others (their collectives must match), so one that has fewer sequences fills up with
    sequences without loss.

    Args:
        source: the sequences.
        first: index of the step's first sequence.
        count: sequences of the step, over all processes.
        rank: this process.
        num_processes: of so many.
        vocab_size: of the model.
    """

    def __init__(self, source: SequenceSource, first: int, count: int, *, rank: int, num_processes: int, vocab_size: int) -> None:
        rows = -(-count // num_processes)
        self._ids = np.zeros((rows, source.sequence_length), dtype=np.int64)
        self._labels = np.full_like(self._ids, NO_LOSS)
        for row, index in enumerate(range(first + rank, first + count, num_processes)):
            self._ids[row], self._labels[row] = read_sequence(source, index, vocab_size)

    @property
    def num_loss_tokens(self) -> int:
        """Tokens with loss in this process's share; a sequence's first token never has any."""
        return int((self._labels[:, 1:] != NO_LOSS).sum())

    def micro_batches(self, max_tokens: int, device: str) -> Iterator[MicroBatch]:
        """Passes of at most `max_tokens` tokens, but at least one sequence, of nearly equal size."""
        rows, length = self._ids.shape
        count = -(-rows // max(1, max_tokens // length))
        for ids, labels in zip(np.array_split(self._ids, count), np.array_split(self._labels, count), strict=True):
            following = np.full_like(labels, NO_LOSS)
            following[:, :-1] = labels[:, 1:]
            positions = np.flatnonzero(following != NO_LOSS)
            arrays = (ids, positions, following.ravel()[positions])
            yield MicroBatch(*(torch.from_numpy(array).to(device, non_blocking=True) for array in arrays))
