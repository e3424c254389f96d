"""From a source of sequences to the batches of a step, the same whatever the number of processes."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from instpt_assets.errors import UserError
from instpt_assets.mixture.sequences import NO_LOSS, Ints, SequenceSource, TrainingSequence
from instpt_assets.recipe.training import Optimization

__all__ = ["NO_LOSS", "DoesNotFit", "MicroBatch", "Plan", "SequenceSource", "StepBatch", "TrainingSequence", "plan_steps", "read_sequence"]

_CHECKED_SEQUENCES = 256


class DoesNotFit(UserError, ValueError):
    """Data, budget and model that do not go together; the message says what to change."""


@dataclass(frozen=True)
class Plan:
    """How the token budget becomes steps."""

    num_steps: int
    """Optimizer steps."""
    step_sequences: int
    """Sequences a step, over all processes."""

    def sequences(self, step: int) -> range:
        """Indices of a step's sequences (steps count from 0)."""
        return range(step * self.step_sequences, (step + 1) * self.step_sequences)


def plan_steps(source: SequenceSource, optimization: Optimization, *, max_positions: int | None, vocab_size: int) -> Plan:
    """Check the data against budget and model before the first step; a model without a window (ALiBi) has None.

    Raises:
        DoesNotFit: a step is no whole number of sequences, there are too few sequences, they are longer than the model's window, or
            hold tokens that the model does not know.
    """
    length = source.sequence_length
    if optimization.batch_tokens % length:
        raise DoesNotFit(f"batch_tokens {optimization.batch_tokens} is no multiple of sequence_length {length}")
    plan = Plan(optimization.num_steps, optimization.batch_tokens // length)
    needed = plan.num_steps * plan.step_sequences
    if len(source) < needed:
        raise DoesNotFit(
            f"{plan.num_steps} steps of {plan.step_sequences} sequences need {needed} sequences; the data has {len(source)}: add data, or lower "
            "optimization.token_budget"
        )
    if max_positions is not None and length > max_positions:
        raise DoesNotFit(
            f"sequence_length {length} is longer than the model's window of {max_positions} tokens (max_position_embeddings): shorten "
            "sequence_length, or take a model with a longer window"
        )
    for index in range(0, needed, -(-needed // _CHECKED_SEQUENCES)):
        read_sequence(source, index, vocab_size)
    return plan


def read_sequence(source: SequenceSource, index: int, vocab_size: int) -> TrainingSequence:
    """One sequence.

    Raises:
        DoesNotFit: a token is outside the model's vocabulary.
    """
    sequence = source.sequence(index)
    low, high = int(sequence.ids.min()), int(sequence.ids.max())
    if low < 0 or high >= vocab_size:
        raise DoesNotFit(
            f"sequence {index} holds token {high if high >= vocab_size else low}, but the model's vocabulary has {vocab_size}: "
            "the data was tokenized with another tokenizer than the model's"
        )
    return sequence


@dataclass(frozen=True)
class MicroBatch:
    """One forward and backward pass of one process."""

    input_ids: torch.Tensor
    """int64 [rows, sequence_length]"""
    positions: torch.Tensor
    """int64 [n]: of the flattened hidden states [rows * sequence_length], those whose next token has loss."""
    targets: torch.Tensor
    """int64 [n]: those next tokens."""
    position_ids: torch.Tensor | None
    """int64 [rows, sequence_length]: counted from each document's begin, if attention is confined to documents."""


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
        self._positions = np.tile(np.arange(source.sequence_length), (rows, 1)) if source.document_attention else None
        for row, index in enumerate(range(first + rank, first + count, num_processes)):
            self._ids[row], self._labels[row], starts = read_sequence(source, index, vocab_size)
            if self._positions is not None:
                self._labels[row, starts] = NO_LOSS  # nothing that it sees tells a document's first token
                self._positions[row] -= _last_start(starts, source.sequence_length)

    @property
    def num_loss_tokens(self) -> int:
        """Tokens with loss in this process's share; a sequence's first token never has any."""
        return int((self._labels[:, 1:] != NO_LOSS).sum())

    def micro_batches(self, max_tokens: int, device: str) -> Iterator[MicroBatch]:
        """Passes of at most `max_tokens` tokens, but at least one sequence, of nearly equal size."""
        rows, length = self._ids.shape
        count = -(-rows // max(1, max_tokens // length))
        for part in np.array_split(np.arange(rows), count):
            labels = self._labels[part]
            following = np.full_like(labels, NO_LOSS)
            following[:, :-1] = labels[:, 1:]
            positions = np.flatnonzero(following != NO_LOSS)
            arrays = (self._ids[part], positions, following.ravel()[positions], None if self._positions is None else self._positions[part])
            yield MicroBatch(*(None if array is None else _on_device(array, device) for array in arrays))


def _last_start(starts: Ints, length: int) -> Ints:
    """Of each position of a sequence [length], where its document begins."""
    return np.repeat(starts, np.diff(starts, append=length))


def _on_device(array: Ints, device: str) -> torch.Tensor:
    """The array as a tensor. From pinned memory a GPU copies while the host goes on, from other memory the host waits for the GPU."""
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device == "cuda" else tensor
