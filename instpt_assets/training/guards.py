"""What stops a training, told so that a person knows what to look at."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import nn

from instpt_assets.errors import UserError
from instpt_assets.mixture.sequences import SequenceSource
from instpt_assets.recipe.execution import Device, TrainingExecution
from instpt_assets.training.batches import StepBatch

_NAMED = 5
"""Sequences that a message names."""


class Diverged(UserError):
    """Loss or gradients are no longer finite."""


class OutOfMemory(UserError):
    """A training does not fit the GPU's memory."""


@contextmanager
def memory_explained(model: nn.Module, execution: TrainingExecution, *, could_adapt: bool) -> Iterator[None]:
    """Tell, where a GPU's memory is full, what takes it and what takes less.

    Args:
        model: what is trained.
        execution: how a step is computed.
        could_adapt: whether adapters could be trained in place of all parameters.

    Raises:
        OutOfMemory: the GPU's memory is full.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
        frozen = sum(weight.numel() for weight in model.parameters() if not weight.requires_grad)
        num_processes = dist.get_world_size()
        # Of a trained parameter weight, gradient and Adam's two moments in float32; of a frozen one its weight in bfloat16.
        gib = (16 * trained + 2 * frozen) / num_processes / 2**30
        less = [
            f"lower training.micro_batch_tokens (now {execution.micro_batch_tokens})",
            *([] if execution.gradient_checkpointing else ["set training.gradient_checkpointing"]),
            f"train on more GPUs (now {num_processes})",
            *(["train adapters in place of all parameters (lora in the recipe)"] if could_adapt else []),
        ]
        raise OutOfMemory(
            f"the GPU's memory is full: {trained:,} trained parameters with their optimizer{f' and {frozen:,} frozen ones' if frozen else ''} "
            f"take about {gib:.1f} GiB of each GPU, the rest is the step's own: {', or '.join(less)}"
        ) from error


@torch.no_grad()
def divergence(
    module: nn.Module, source: SequenceSource, sequences: range, *, vocab_size: int, what: str, last_good: str, device: Device
) -> str:
    """What is known about a step without a finite loss or gradient. All processes call it.

    Its sequences are computed once more, one by one, to tell those that it comes from.

    Args:
        module: of `shard`: the summed loss of a micro-batch.
        source: describes the sequences.
        sequences: indices of the step's.
        vocab_size: of the model.
        what: the step and its figures, in words.
        last_good: what was kept before it, in words.
        device: where the model is.
    """
    rank, num_processes = dist.get_rank(), dist.get_world_size()
    batch = StepBatch(source, sequences.start, len(sequences), rank=rank, num_processes=num_processes, vocab_size=vocab_size)
    losses = [module(row).item() for row in batch.micro_batches(1, device)]
    # A share that has fewer sequences than others is filled up.
    own = list(zip(sequences[rank::num_processes], losses, strict=False))
    shares: list[list[tuple[int, float]]] = [[] for _ in range(num_processes)]
    dist.all_gather_object(shares, own)
    by_index = dict(sorted(pair for share in shares for pair in share))
    bad = [index for index, value in by_index.items() if not math.isfinite(value)]
    if not bad:
        cause = f"the loss of each of its {len(by_index)} sequences alone is finite: {_named(source, list(by_index))}"
    elif len(bad) == len(by_index):
        cause = f"the loss of each of its {len(bad)} sequences alone is not finite, so the weights are at fault: {_named(source, bad)}"
    else:
        cause = f"it comes from {len(bad)} of its {len(by_index)} sequences: {_named(source, bad)}"
    some = 0 < len(bad) < len(by_index)
    advice = "Look at these documents, or take them out" if some else "Lower learning_rate, or raise warmup_steps"
    return f"{what}; {cause}; {last_good}. {advice}"


def _named(source: SequenceSource, indices: Sequence[int]) -> str:
    named = "; ".join(f"sequence {index} ({source.describe(index)})" for index in indices[:_NAMED])
    return named + (f"; and {len(indices) - _NAMED} more, up to sequence {indices[-1]}" if len(indices) > _NAMED else "")
