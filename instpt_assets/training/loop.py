"""The training loop: tunes the synthesizer, pre-trains the arms and instruction-tunes them.

Recipe decides what comes out (steps, learning rates, data order, dtype); execution decides how a step is computed (processes,
micro-batches) and changes results by rounding only. With the same threads and processes on the CPU, a training gives the same
bytes every time, killed and resumed or not.
"""

import hashlib
import json
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from transformers import PreTrainedModel

from instpt_assets.errors import UserError
from instpt_assets.recipe.execution import Device, TrainingExecution
from instpt_assets.recipe.training import Optimization
from instpt_assets.training.batches import SequenceSource, StepBatch, plan_steps
from instpt_assets.training.distributed import join_processes, shard, summed
from instpt_assets.training.log import LogLine, write_log
from instpt_assets.training.model import describe, write_checkpoint
from instpt_assets.training.optimizer import build_optimizer, learning_rate
from instpt_assets.training.state import load_state, release, save_state, seal, write_aside

Progress = Callable[[Mapping[str, Any]], None]

PROGRESS_SECONDS = 10.0
_SAVING_SHARE = 0.05  # at most so much of the time goes into saving state


class Diverged(UserError):
    """Loss or gradients are no longer finite."""


def train(
    model: PreTrainedModel,
    source: SequenceSource,
    optimization: Optimization,
    execution: TrainingExecution,
    *,
    out: Path,
    device: Device = "cpu",
    tokenizer: Path | None = None,
    checkpoint_steps: Sequence[int] = (),
    state_folder: Path | None = None,
    save_seconds: float = 60.0,
    progress: Progress = lambda _: None,
) -> dict[str, Any]:
    """Train a model; under torchrun every process calls this with the same arguments.

    Writes `checkpoint/` (and `checkpoint-<step>/` after each of `checkpoint_steps`) as Hugging Face folders in the recipe's dtype, and
    `training_log.jsonl`.

    Args:
        model: float32 weights; sharded in place.
        source: the data in training order; a step takes the next batch_tokens / sequence_length sequences.
        optimization: the recipe.
        execution: how a step is computed.
        out: where the files go.
        device: where the model is trained.
        tokenizer: a tokenizer folder whose files go into the checkpoints.
        checkpoint_steps: steps after which a checkpoint is kept.
        state_folder: where the state is saved every `save_seconds` and on SIGTERM, and found again; None: nowhere.
        save_seconds: least time between two states.
        progress: told step, num_steps, loss, learning_rate, tokens_per_second and seconds_left every few seconds.

    Returns:
        Statistics: steps, tokens, loss_tokens, first_loss, final_loss, num_parameters, vocab_size, num_processes, resumed_from_step,
        tokens_per_second, training_seconds.

    Raises:
        ValueError: data, budget and model do not fit together (`plan_steps`).
        Diverged: loss or gradients are not finite.
    """
    plan = plan_steps(source, optimization, max_positions=model.config.max_position_embeddings, vocab_size=model.config.vocab_size)
    mesh = join_processes(device)
    rank, num_processes = dist.get_rank(), dist.get_world_size()
    dtype = getattr(torch, optimization.dtype)
    module = shard(model, mesh, dtype, execution)
    optimizer = build_optimizer(model.parameters(), optimization)

    lines: list[LogLine] = []
    notes = {"fingerprint": _fingerprint(model, source, optimization)}
    if state_folder is not None:
        loaded = load_state(state_folder, model, optimizer, fingerprint=notes["fingerprint"], checkpoint_steps=checkpoint_steps)
        lines = [LogLine(**line) for line in loaded["log"]] if loaded else []
    resumed_from = len(lines)
    started = told = saved = time.monotonic()
    save_every = save_seconds

    with _termination() as terminated:
        for step in range(resumed_from, plan.num_steps):
            first = step * plan.step_sequences
            batch = StepBatch(
                source, first, plan.step_sequences, rank=rank, num_processes=num_processes, vocab_size=model.config.vocab_size
            )
            save_due = rank == 0 and time.monotonic() - saved >= save_every
            loss_tokens, saving, ending = summed([batch.num_loss_tokens, save_due, terminated.is_set()], device)

            loss_sum = torch.zeros((), dtype=torch.float32, device=device)
            for micro_batch in batch.micro_batches(execution.micro_batch_tokens, device):
                loss = module(micro_batch)
                # FSDP averages over processes; the mean is over the tokens of all of them.
                (loss * (num_processes / max(1.0, loss_tokens))).backward()
                loss_sum += loss.detach()
            norm = torch.nn.utils.clip_grad_norm_(model.parameters(), optimization.clip_norm).full_tensor().item()
            loss_value = summed([loss_sum.item()], device)[0] / max(1.0, loss_tokens)
            if not (math.isfinite(loss_value) and math.isfinite(norm)):
                raise Diverged(_divergence(step + 1, loss_value, norm, resumed_from, checkpoint_steps, state_folder))
            rate = learning_rate(step, optimization)
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
            optimizer.zero_grad()
            lines.append(LogLine(step + 1, loss_value, rate, norm, (step + 1) * optimization.batch_tokens, int(loss_tokens)))

            if step + 1 in checkpoint_steps:
                _keep_checkpoint(model, dtype, tokenizer, f"checkpoint-{step + 1}", state_folder or out, sealed=state_folder is not None)
            if state_folder is not None and (saving or ending):
                begun = time.monotonic()
                save_state(state_folder, step + 1, model, optimizer, {**notes, "log": [asdict(line) for line in lines]})
                saved = time.monotonic()
                save_every = max(save_seconds, (saved - begun) / _SAVING_SHARE)
            if ending:
                raise SystemExit(128 + signal.SIGTERM)
            if rank == 0 and (time.monotonic() - told >= PROGRESS_SECONDS or step + 1 == plan.num_steps):
                told = time.monotonic()
                progress(_message(lines, plan.num_steps, optimization.batch_tokens, (told - started) / (step + 1 - resumed_from)))

    _keep_checkpoint(model, dtype, tokenizer, "checkpoint", out, sealed=False)
    if rank == 0:
        if state_folder is not None:
            for kept in checkpoint_steps:
                release(state_folder / f"checkpoint-{kept}", out / f"checkpoint-{kept}")
        write_log(lines, out)
    seconds = time.monotonic() - started
    return {
        "steps": plan.num_steps,
        "tokens": plan.num_steps * optimization.batch_tokens,
        "loss_tokens": sum(line.loss_tokens for line in lines),
        "first_loss": lines[0].loss,
        "final_loss": lines[-1].loss,
        **describe(model),
        "num_processes": num_processes,
        "resumed_from_step": resumed_from,
        "tokens_per_second": round((plan.num_steps - resumed_from) * optimization.batch_tokens / seconds, 1),
        "training_seconds": round(seconds, 2),
    }


def _keep_checkpoint(model: PreTrainedModel, dtype: torch.dtype, tokenizer: Path | None, name: str, folder: Path, *, sealed: bool) -> None:
    """Gather the weights and write them on rank 0, sealed where a resumed training must be able to trust them."""
    weights = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    if dist.get_rank() == 0:
        target = write_aside(folder) if sealed else folder / name
        write_checkpoint(model, weights, dtype=dtype, tokenizer=tokenizer, folder=target)
        if sealed:
            seal(target, folder / name)
    dist.barrier()


def _message(lines: Sequence[LogLine], num_steps: int, batch_tokens: int, seconds_a_step: float) -> dict[str, Any]:
    last = lines[-1]
    return {
        "kind": "progress",
        "step": last.step,
        "num_steps": num_steps,
        "loss": round(last.loss, 4),
        "learning_rate": last.learning_rate,
        "tokens_per_second": round(batch_tokens / seconds_a_step, 1),
        "seconds_left": round((num_steps - last.step) * seconds_a_step, 1),
    }


def _divergence(step: int, loss: float, norm: float, resumed_from: int, checkpoint_steps: Sequence[int], state_folder: Path | None) -> str:
    kept = [kept for kept in checkpoint_steps if kept < step]
    good = f"the last good checkpoint is checkpoint-{kept[-1]}" if kept else "no checkpoint was due before it"
    if state_folder is not None and (kept or resumed_from):
        good += f" (in {state_folder})"
    return f"step {step}: loss {loss}, gradient norm {norm}; {good}. Lower learning_rate or raise warmup_steps"


def _fingerprint(model: PreTrainedModel, source: SequenceSource, optimization: Optimization) -> str:
    """What a saved state must have been trained with to be continued."""
    shapes = {name: list(weight.shape) for name, weight in model.named_parameters()}
    made_of = [optimization.hashed(), source.sequence_length, len(source), shapes]
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
