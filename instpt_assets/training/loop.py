"""The training loop: tunes the synthesizer, pre-trains the arms and instruction-tunes them.

Recipe decides what comes out (steps, learning rates, data order, dtype); execution decides how a step is computed (processes,
micro-batches) and changes results by rounding only. With the same threads and processes on the CPU, a training gives the same
bytes every time, killed and resumed or not. So nothing that a step needs is hidden: its data and its learning rate follow from its number,
and its random numbers (dropout) from the seed, its number and the process, so that there is no random state to be lost.
"""

import hashlib
import json
import math
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from transformers import PreTrainedModel

from instpt_assets.mixture.sequences import SequenceSource
from instpt_assets.recipe.execution import Device, TrainingExecution
from instpt_assets.recipe.training import Optimization
from instpt_assets.store.sealed import SealedFolders
from instpt_assets.training.batches import StepBatch, plan_steps
from instpt_assets.training.distributed import join_processes, shard, summed
from instpt_assets.training.document_attention import check_confined
from instpt_assets.training.flops import peak_tokens_per_second
from instpt_assets.training.guards import Diverged, divergence
from instpt_assets.training.held_out import HeldOut
from instpt_assets.training.keeper import Keeper
from instpt_assets.training.lineage import Lineage
from instpt_assets.training.log import LogLine
from instpt_assets.training.model import describe
from instpt_assets.training.model_card import Card
from instpt_assets.training.monitor import Monitor, Progress
from instpt_assets.training.optimizer import build_optimizer, learning_rate, set_learning_rate
from instpt_assets.training.prefetch import batches


def train(
    model: PreTrainedModel,
    source: SequenceSource,
    optimization: Optimization,
    execution: TrainingExecution,
    *,
    out: Path,
    device: Device = "cpu",
    seed: int = 0,
    tokenizer: Path | None = None,
    checkpoint_steps: Sequence[int] = (),
    state_folder: Path | None = None,
    state_url: str | None = None,
    lineage: Lineage | None = None,
    save_seconds: float = 60.0,
    held_out: SequenceSource | None = None,
    held_out_every_steps: int | None = None,
    card: Card | None = None,
    progress: Progress = lambda _: None,
) -> dict[str, Any]:
    """Train a model; under torchrun every process calls this with the same arguments.

    Writes `checkpoint/` (and `checkpoint-<step>/` after each of `checkpoint_steps`) as Hugging Face folders in the recipe's dtype,
    `training_log.jsonl`, and into `logs/` TensorBoard event files and what each step took.

    Args:
        model: float32 weights; sharded in place.
        source: the data in training order; a step takes the next batch_tokens / sequence_length sequences.
        optimization: the recipe.
        execution: how a step is computed.
        out: where the files go.
        device: where the model is trained.
        seed: of the random numbers that a step draws.
        tokenizer: a tokenizer folder whose files go into the checkpoints.
        checkpoint_steps: steps after which a checkpoint is kept.
        state_folder: where the state is saved every `save_seconds` and on SIGTERM, and found again; None: nowhere.
        state_url: where states are copied to in the background, for a rerun on another machine; None: nowhere.
        lineage: where the state is kept that a training with a larger budget goes on from, and found; None: nowhere.
        save_seconds: least time between two states.
        held_out: sequences that are not trained on; the loss on them is followed.
        held_out_every_steps: steps from one held-out loss to the next (`HeldOut`).
        card: names the training where it is followed.
        progress: told the figures of the last step every few seconds (`Monitor`).

    Returns:
        Statistics: steps, tokens, loss_tokens, first_loss, final_loss, num_parameters, vocab_size, num_processes, resumed_from_step,
        extended_from_step (the last that a training with another budget did; 0: none) and those of the monitor; not_extended: why none
        did, where the recipe names earlier budgets.

    Raises:
        ValueError: data, budget and model do not fit together (`plan_steps`).
        NotConfined: the model's attention cannot be confined to documents, as the data asks.
        Diverged: loss or gradients are not finite.
    """
    # Start
    vocab_size, window = model.config.vocab_size, getattr(model.config, "max_position_embeddings", None)
    plan = plan_steps(source, optimization, max_positions=window, vocab_size=vocab_size)
    mesh = join_processes(device)
    rank, num_processes = dist.get_rank(), dist.get_world_size()
    dtype = getattr(torch, optimization.dtype)
    if source.document_attention:
        check_confined(model)
    module = shard(model, mesh, dtype, execution)
    optimizer = build_optimizer(model.parameters(), optimization)
    keeper = Keeper(
        model=model,
        optimizer=optimizer,
        dtype=dtype,
        tokenizer=tokenizer,
        out=out,
        checkpoint_steps=checkpoint_steps,
        states=None if state_folder is None else SealedFolders(state_folder, state_url),
        lineage=lineage,
        save_seconds=save_seconds,
        optimization=optimization,
        fingerprint=_fingerprint(model, source, optimization, seed),
    )
    lines = keeper.resume()
    peak = peak_tokens_per_second(
        model, source.sequence_length, device=device, dtype=dtype, num_processes=num_processes, given_tflops=execution.peak_tflops
    )
    held_out_sequences = HeldOut(module, held_out, held_out_every_steps, optimization, execution, vocab_size, device)
    monitor = Monitor(
        progress,
        num_steps=plan.num_steps,
        batch_tokens=optimization.batch_tokens,
        first=rank == 0,
        peak_tokens_per_second=peak,
        lines=lines,
        out=out,
        state_folder=state_folder,
        card=card,
    )
    monitor.say(keeper.beginning())
    prepared = batches(source, plan, keeper.resumed_from_step, rank=rank, num_processes=num_processes, vocab_size=vocab_size)

    with _termination() as terminated, monitor, closing(keeper), closing(prepared):
        for step in range(keeper.resumed_from_step, plan.num_steps):
            # Step
            begun = time.monotonic()
            batch = next(prepared)
            waited = time.monotonic() - begun
            loss_tokens, saving, ending = summed([batch.num_loss_tokens, keeper.is_due(), terminated.is_set()], device)
            rate = learning_rate(step, optimization)
            set_learning_rate(optimizer, rate)
            _seed(seed, step, rank)
            loss, norm = _backward(module, batch, loss_tokens, optimization.clip_norm, execution, device)
            if not (math.isfinite(loss) and math.isfinite(norm)):
                what, last_good = f"step {step + 1}: loss {loss}, gradient norm {norm}", keeper.last_good(step + 1)
                raise Diverged(
                    divergence(module, source, plan.sequences(step), vocab_size=vocab_size, what=what, last_good=last_good, device=device)
                )
            optimizer.step()
            optimizer.zero_grad()

            # Between steps
            seconds, tokens = time.monotonic() - begun, (step + 1) * optimization.batch_tokens
            unseen_loss = held_out_sequences.loss_after(step + 1)
            lines.append(LogLine(step + 1, loss, rate, norm, tokens, int(loss_tokens), unseen_loss))
            monitor.record(lines[-1], seconds=seconds, waited=waited)
            keeper.after_step(lines, save=bool(saving or ending))
            if ending:
                raise SystemExit(128 + signal.SIGTERM)

    # End
    keeper.finish(lines)
    return {
        "steps": plan.num_steps,
        "tokens": plan.num_steps * optimization.batch_tokens,
        "loss_tokens": sum(line.loss_tokens for line in lines),
        "first_loss": lines[0].loss,
        "final_loss": lines[-1].loss,
        **describe(model),
        "num_processes": num_processes,
        **keeper.statistics(),
        **monitor.finish(),
    }


def _backward(
    module: nn.Module, batch: StepBatch, loss_tokens: float, clip_norm: float, execution: TrainingExecution, device: Device
) -> tuple[float, float]:
    """Gradients of the mean loss over a step's tokens with loss, clipped, accumulated over micro-batches; that mean, and their norm before."""
    loss_sum = torch.zeros((), dtype=torch.float32, device=device)
    for micro_batch in batch.micro_batches(execution.micro_batch_tokens, device):
        loss = module(micro_batch)
        # FSDP averages over processes; the mean is over the tokens of all of them.
        (loss * (dist.get_world_size() / max(1.0, loss_tokens))).backward()
        loss_sum += loss.detach()
    norm = nn.utils.clip_grad_norm_(module.parameters(), clip_norm).full_tensor().item()
    return summed([loss_sum.item()], device)[0] / max(1.0, loss_tokens), norm


def _seed(seed: int, step: int, rank: int) -> None:
    """Begin a step's random numbers, which follow from nothing else."""
    digest = hashlib.sha256(f"{seed}/{step}/{rank}".encode()).digest()
    torch.manual_seed(int.from_bytes(digest[:8], "little", signed=True))


def _fingerprint(model: PreTrainedModel, source: SequenceSource, optimization: Optimization, seed: int) -> str:
    """What a saved state must have been trained with to be continued."""
    shapes = {name: list(weight.shape) for name, weight in model.named_parameters()}
    made_of = [optimization.hashed(), source.sequence_length, len(source), seed, shapes]
    return hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()


@contextmanager
def _termination() -> Iterator[threading.Event]:
    """An event that SIGTERM sets instead of ending the process, so that the step in progress can be saved."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    before = signal.signal(signal.SIGTERM, lambda *_: event.set())
    try:
        yield event
    finally:
        signal.signal(signal.SIGTERM, before)
