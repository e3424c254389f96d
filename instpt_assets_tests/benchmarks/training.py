"""The training loop against a bare torch loop of the same model, batch and optimizer, in tokens a second on the CPU.

Ours is `train` with all that it does beside the arithmetic: FSDP2 on one process, a thread that prepares batches from a memory-mapped file,
the log, event files, the guard of loss and norm, a state kept once. The bare loop holds its one batch in memory; it is written out below with
transformers' own loss, and once more with our loss in chunks, which leaves what the loop costs. The sides take turns; ratios are within a
repeat. Seconds are those from the first optimizer step to the last.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook
from transformers import PreTrainedModel
from transformers.utils.logging import disable_progress_bar

from instpt_assets.mixture.sequences import TrainingSequence
from instpt_assets.recipe.execution import TrainingExecution
from instpt_assets.recipe.training import ModelShape, Optimization
from instpt_assets.training.batches import Plan, StepBatch
from instpt_assets.training.loop import train
from instpt_assets.training.loss import SummedLoss
from instpt_assets.training.model import build_model
from instpt_assets.training.optimizer import build_optimizer
from instpt_assets.training.prefetch import batches

SHAPES = {
    # The demo's models, and one of 13 million parameters: shape, vocabulary and tokens a step, in two passes.
    "demo": (
        ModelShape(
            hidden_size=192, num_layers=3, num_heads=3, intermediate_size=512, max_position_embeddings=512, tie_word_embeddings=True
        ),
        4096,
        8192,
    ),
    "13M": (ModelShape(hidden_size=320, num_layers=6, num_heads=5, intermediate_size=864, tie_word_embeddings=True), 16_384, 2048),
}
LENGTH = 256
FAKE_STEP_TOKENS_A_SECOND = 1e6  # of eight H200 at 1.3 billion parameters


class FileSource:
    """Sequences of a memory-mapped file of random tokens; loss on all of them."""

    sequence_length = LENGTH
    document_attention = False

    def __init__(self, folder: Path, num_sequences: int, vocab_size: int) -> None:
        path = folder / f"tokens-{vocab_size}-{num_sequences}.npy"
        if not path.exists():
            np.save(path, np.random.default_rng(0).integers(3, vocab_size, num_sequences * LENGTH, dtype=np.uint16))
        self._tokens = np.load(path, mmap_mode="r")

    def __len__(self) -> int:
        return len(self._tokens) // LENGTH

    def sequence(self, index: int) -> TrainingSequence:
        ids = self._tokens[index * LENGTH : (index + 1) * LENGTH].astype(np.int64)
        return TrainingSequence(ids, ids.copy(), np.zeros(1, dtype=np.int64))

    def describe(self, index: int) -> str:
        return f"sequence {index}"


def ours(model: PreTrainedModel, source: FileSource, optimization: Optimization, folder: Path) -> dict[str, Any]:
    """`train`, and what it tells of itself."""
    with TemporaryDirectory(dir=folder) as out:
        state = Path(out, "state")
        execution = TrainingExecution(micro_batch_tokens=optimization.batch_tokens // 2)
        return train(model, source, optimization, execution, out=Path(out), state_folder=state, save_seconds=3600.0)


def bare(model: PreTrainedModel, source: FileSource, optimization: Optimization, *, chunked: bool) -> None:
    """A plain loop: float32 weights, autocast where the recipe says bfloat16."""
    count = optimization.batch_tokens // LENGTH
    ids = torch.from_numpy(np.stack([source.sequence(index).ids for index in range(count)]))
    batch = StepBatch(source, 0, count, rank=0, num_processes=1, vocab_size=model.config.vocab_size)
    passes = list(batch.micro_batches(optimization.batch_tokens // 2, "cpu"))
    optimizer = build_optimizer(model.parameters(), optimization)
    module = SummedLoss(model, TrainingExecution(), "cpu").train() if chunked else model.train()
    low = optimization.dtype == "bfloat16"
    for _ in range(optimization.num_steps):
        for number, rows in enumerate(ids.split(count // 2)):
            with torch.autocast("cpu", torch.bfloat16, enabled=low):
                loss = module(passes[number]) / batch.num_loss_tokens if chunked else model(input_ids=rows, labels=rows).loss / len(passes)
            loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), optimization.clip_norm)
        optimizer.step()
        optimizer.zero_grad()


def seconds_a_step(run: Callable[[], Any]) -> tuple[tuple[float, float], Any]:
    """Wall and processor seconds from one optimizer step to the next, the first left out; and what the run returns."""
    times: list[tuple[float, float]] = []
    handle = register_optimizer_step_post_hook(lambda *_: times.append((time.perf_counter(), time.process_time())))
    try:
        result = run()
    finally:
        handle.remove()
    wall, processor = ((last - first) / (len(times) - 1) for first, last in zip(times[0], times[-1], strict=True))
    return (wall, processor), result


def compare(name: str, dtype: str, *, steps: int, repeats: int, folder: Path) -> dict[str, Any]:
    """Tokens a second of each side, and ours as a share of each bare loop's: medians over the repeats of the ratio within one."""
    shape, vocab_size, batch_tokens = SHAPES[name]
    optimization = Optimization(token_budget=steps * batch_tokens, batch_tokens=batch_tokens, learning_rate=1e-4, dtype=dtype)
    source = FileSource(folder, steps * batch_tokens // LENGTH, vocab_size)

    def start() -> PreTrainedModel:
        return build_model(shape, vocab_size, seed=0, bos_token_id=1, eos_token_id=2, pad_token_id=0)

    sides: dict[str, Callable[[], Any]] = {
        "ours": lambda: ours(start(), source, optimization, folder),
        "bare": lambda: bare(start(), source, optimization, chunked=False),
        "bare, our loss": lambda: bare(start(), source, optimization, chunked=True),
    }
    taken: dict[str, list[tuple[float, float]]] = {side: [] for side in sides}
    waits = []
    for repeat in range(repeats + 1):
        for side, run in sides.items():
            seconds, result = seconds_a_step(run)
            if repeat:  # the first one warms up
                taken[side].append(seconds)
                waits += [result["data_wait_share"]] if side == "ours" else []
    # Every side runs on one thread, where the processor's time is what a quiet machine takes; our preparing thread counts in it.
    ratios = {
        side: {
            clock: median(b[i] / o[i] for b, o in zip(taken[side], taken["ours"], strict=True))
            for i, clock in enumerate(("wall", "processor"))
        }
        for side in sides
        if side != "ours"
    }
    return {
        "shape": name,
        "dtype": dtype,
        "tokens_a_second": {side: round(batch_tokens / median(wall for wall, _ in times)) for side, times in taken.items()},
        "ours / other": ratios,
        "data_wait_share": median(waits),
    }


def waiting(folder: Path) -> dict[str, Any]:
    """What of the time is spent waiting for batches where a step takes no computing, but the time of one on eight GPUs."""
    batch_tokens, steps = 2**20, 20
    source = FileSource(folder, batch_tokens // LENGTH * steps, 32_000)
    plan = Plan(steps, batch_tokens // LENGTH)
    waited = begun = 0.0

    def alone() -> Iterator[StepBatch]:
        for step in range(steps):
            yield StepBatch(source, step * plan.step_sequences, plan.step_sequences, rank=0, num_processes=1, vocab_size=32_000)

    shares = {}
    for way, prepared in (("by a thread", batches(source, plan, 0, rank=0, num_processes=1, vocab_size=32_000)), ("in the loop", alone())):
        waited = 0.0
        for step in range(steps):
            asked = time.perf_counter()
            next(prepared)
            if step:
                waited += time.perf_counter() - asked
            else:
                begun = time.perf_counter()
            time.sleep(batch_tokens / FAKE_STEP_TOKENS_A_SECOND)
        shares[way] = waited / (time.perf_counter() - begun)
    return {"step_tokens": batch_tokens, "step_tokens_a_second": FAKE_STEP_TOKENS_A_SECOND, "data_wait_share": shares}


def processes(folder: Path, steps: int) -> dict[str, Any]:
    """One process on one thread against two (gloo) on one thread each: losses and tokens a second."""
    results = {}
    for number in (1, 2):
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(number), "--module"]
        out = folder / f"processes-{number}"
        out.mkdir()
        arguments = ["instpt_assets_tests.benchmarks.training", "--process", str(out), "--steps", str(steps)]
        subprocess.run([*command, *arguments], check=True, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        results[number] = json.loads((out / "result.json").read_text())
    losses = [results[number].pop("losses") for number in (1, 2)]
    difference = max(abs(one - two) for one, two in zip(*losses, strict=True))
    return {
        "steps": steps,
        "largest difference of the losses": difference,
        "tokens_a_second": {n: r["tokens_per_second"] for n, r in results.items()},
    }


def process(out: Path, steps: int) -> None:
    """One process of `processes`."""
    from instpt_assets.training.log import read_log

    torch.set_num_threads(1)
    shape, vocab_size, _ = SHAPES["demo"]
    batch_tokens = 4 * LENGTH
    optimization = Optimization(token_budget=steps * batch_tokens, batch_tokens=batch_tokens, learning_rate=1e-3, dtype="float32")
    model = build_model(shape, vocab_size, seed=0, bos_token_id=1, eos_token_id=2, pad_token_id=0)
    source = FileSource(out.parent, steps * batch_tokens // LENGTH, vocab_size)
    result = train(model, source, optimization, TrainingExecution(micro_batch_tokens=2 * LENGTH), out=out)
    if torch.distributed.get_rank() == 0:
        row = {"tokens_per_second": result["tokens_per_second"], "losses": [line.loss for line in read_log(out)]}
        (out / "result.json").write_text(json.dumps(row), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="*", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--dtypes", nargs="*", choices=("float32", "bfloat16"), default=["float32", "bfloat16"])
    parser.add_argument("--parts", nargs="*", choices=("rates", "waiting", "processes"), default=["rates", "waiting", "processes"])
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--process", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.process is not None:
        process(arguments.process, arguments.steps)
        return
    torch.set_num_threads(1)
    disable_progress_bar()
    result: dict[str, Any] = {}
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if "rates" in arguments.parts:
            rates = [(shape, dtype) for shape in arguments.shapes for dtype in arguments.dtypes]
            result["rates"] = [compare(*side, steps=arguments.steps, repeats=arguments.repeats, folder=folder) for side in rates]
        if "waiting" in arguments.parts:
            result["waiting"] = waiting(folder)
        if "processes" in arguments.parts:
            result["processes"] = processes(folder, 50)
    print(json.dumps(result, indent=1))
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(result, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
