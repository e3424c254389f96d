"""The loss on sequences that no arm trains on, while a training runs. It changes neither weights, gradients nor random state."""

import math
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import FSDPModule

from instpt_assets.mixture.sequences import SequenceSource
from instpt_assets.recipe.execution import Device, TrainingExecution
from instpt_assets.recipe.training import Optimization
from instpt_assets.training.batches import StepBatch
from instpt_assets.training.distributed import summed

_TIMES = 20
_SHARE = 0.05
_FORWARD_SHARE = 1 / 3  # of what a token costs in training


def default_every_steps(num_steps: int, batch_tokens: int, held_out_tokens: int) -> int:
    """Steps from one held-out loss to the next: about twenty in a training, and so few that they take about a twentieth of it at most."""
    affordable = held_out_tokens * _FORWARD_SHARE / (batch_tokens * _SHARE)
    return max(1, math.ceil(num_steps / _TIMES), math.ceil(affordable))


@dataclass(frozen=True)
class HeldOut:
    """Held-out sequences, and when the loss on them is computed. All processes call `loss_after`, after the same steps."""

    module: nn.Module
    """Of `shard`: the summed loss of a micro-batch."""
    source: SequenceSource | None
    """The sequences; None: there are none, and no loss."""
    every_steps: int | None
    """Steps from one time to the next; `default_every_steps` by default. After the last step it is always computed."""
    optimization: Optimization
    """Of the training."""
    execution: TrainingExecution
    """How a pass is computed."""
    vocab_size: int
    """Of the model."""
    device: Device
    """Where the model is."""

    def loss_after(self, step: int) -> float | None:
        """The held-out loss of the model as it is after `step` steps, or None where it is not due."""
        if self.source is None or not len(self.source):
            return None
        num_steps, held_out_tokens = self.optimization.num_steps, len(self.source) * self.source.sequence_length
        every = self.every_steps or default_every_steps(num_steps, self.optimization.batch_tokens, held_out_tokens)
        if step % every and step != num_steps:
            return None
        return held_out_loss(
            self.module,
            self.source,
            micro_batch_tokens=self.execution.micro_batch_tokens,
            vocab_size=self.vocab_size,
            device=self.device,
        )


def held_out_loss(module: nn.Module, source: SequenceSource, *, micro_batch_tokens: int, vocab_size: int, device: Device) -> float:
    """Mean loss in nats a token with loss over all sequences of the source, the same on any number of processes but for rounding.

    Args:
        module: of `shard`: the summed loss of a micro-batch. All processes call this; each makes as many passes as the others.
        source: the sequences.
        micro_batch_tokens: tokens of one pass of a process.
        vocab_size: of the model.
        device: where the model is.
    """
    rank, num_processes = dist.get_rank(), dist.get_world_size()
    # So many sequences at a time are in memory, however many there are.
    at_once = num_processes * max(1, micro_batch_tokens // source.sequence_length)
    loss, loss_tokens = 0.0, 0
    module.eval()
    try:
        with torch.no_grad():
            for first in range(0, len(source), at_once):
                count = min(at_once, len(source) - first)
                batch = StepBatch(source, first, count, rank=rank, num_processes=num_processes, vocab_size=vocab_size)
                loss_tokens += batch.num_loss_tokens
                loss += sum(module(micro_batch).item() for micro_batch in batch.micro_batches(micro_batch_tokens, device))
    finally:
        module.train()
        for part in module.modules():
            if isinstance(part, FSDPModule):
                part.reshard()  # no backward pass follows that would
    total, tokens = summed([loss, loss_tokens], device)
    return total / max(1.0, tokens)
