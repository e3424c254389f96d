"""Training on one GPU: the speed of the bundled from-scratch recipes, what each setting buys, and the memory of an 8B continual step.

    python -m instpt_assets_tests.benchmarks.gpu_training            # from the repository's root, under ten minutes
    python -m instpt_assets_tests.benchmarks.gpu_training --tiny     # the same rows on the CPU, with tiny models and nothing compiled

It runs on a bare machine with torch (CUDA, 2.11 or later), transformers (5.16 or later), numpy, safetensors and pydantic. Where the machine
lacks pydantic and reaches no registry, carry wheels along: here `pip download --only-binary :all: -d wheels pydantic` (with the machine's
`--python-version` and `--platform` if they are others), there `pip install --no-index --find-links wheels pydantic`. Packages that it can use
besides: liger-kernel, flash-attn and peft (their rows are left out without them).

First the peak is measured: products of bfloat16 matrices, 8192 x 8192. Then, a model after the other, each in a process of its own, rows of
settings: from random weights and random tokens a few warm-up steps (torch.compile compiles in them), then timed ones. A step is what the
training loop makes of it: FSDP2 on one process, micro-batches, loss, backward passes, clipping, fused AdamW. MFU is 6N + 12LHQT operations a
token (Chowdhery et al. 2022) against the measured peak; recomputation counts once. Tables go to standard output; with `$OUT` or `--out` a
`gpu_training.json` into that folder, written anew after each row, so that an interrupted run leaves what it has measured.
"""

import argparse
import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import torch
import transformers
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, MistralForCausalLM, PreTrainedModel
from transformers.utils.logging import disable_progress_bar

from instpt_assets.mixture.sequences import TrainingSequence
from instpt_assets.recipe.execution import Device, TrainingExecution
from instpt_assets.recipe.lora import Lora
from instpt_assets.recipe.training import ModelShape, Optimization
from instpt_assets.training.batches import StepBatch
from instpt_assets.training.distributed import join_processes, shard
from instpt_assets.training.flops import flops_per_token, peak_flops
from instpt_assets.training.loop import train
from instpt_assets.training.lora import AdapterError, add_adapters
from instpt_assets.training.model import mistral_config
from instpt_assets.training.optimizer import build_optimizer
from instpt_assets.training.settings import ExecutionError

# The bundled recipes' shapes: there is no YAML on a bare machine. A test compares them with the recipes.
SHAPES = {
    "general_500m": ModelShape(hidden_size=1536, num_layers=16, num_heads=24, intermediate_size=4320, max_position_embeddings=2048),
    "general_1_3b": ModelShape(hidden_size=2048, num_layers=20, num_heads=32, intermediate_size=8192, max_position_embeddings=2048),
}
VOCAB_SIZE = 32_000
TINY = ModelShape(hidden_size=32, num_layers=2, num_heads=2, intermediate_size=64, max_position_embeddings=256)
TINY_VOCAB_SIZE = 512
LLAMA3_8B: dict[str, Any] = {
    "vocab_size": 128_256, "hidden_size": 4096, "intermediate_size": 14_336, "num_hidden_layers": 32, "num_attention_heads": 32,
    "num_key_value_heads": 8, "max_position_embeddings": 8192, "rope_parameters": {"rope_type": "default", "rope_theta": 500_000.0},
}  # fmt: skip
MINUTES = 9.0
DOCUMENT_TOKENS = 500  # in rows with attention confined to documents: that of a web page
WHOLE = 2**30  # tokens: more than any batch has


class Row(NamedTuple):
    """One line of a table."""

    name: str
    settings: dict[str, Any]
    """Of `TrainingExecution`, on top of the part's."""
    micro_batch_tokens: int
    documents: bool = False
    """Whether attention is confined to documents."""
    loop: bool = False
    """Whether the training loop itself runs, with its log, thread, event files and checkpoint."""
    lora: Lora | None = None
    """Adapters that are trained in place of all weights."""


class Part(NamedTuple):
    """One model and its rows, the most telling first: what the time does not reach is left out."""

    length: int
    step_tokens: int
    rows: Sequence[Row]


def parts() -> dict[str, Part]:
    """What is measured."""
    best = {"compile": True}
    from_scratch = (
        Row("compiled layers", best, 16_384),
        Row("plain: sdpa, loss in chunks", {}, 16_384),
        Row("plain, but whole logits", {"loss_chunk_tokens": WHOLE}, 16_384),
        Row("compiled, micro-batch 8K", best, 8192),
        Row("compiled, micro-batch 32K", best, 32_768),
        Row("compiled, gradient checkpointing", {**best, "gradient_checkpointing": True}, 32_768),
        Row("compiled, documents, sdpa", best, 16_384, documents=True),
        Row("compiled, documents, flex", {**best, "attention": "flex_attention"}, 16_384, documents=True),
        Row("plain, documents, flash-attn", {"attention": "flash_attention_2"}, 16_384, documents=True),
        Row("plain, eager attention", {"attention": "eager"}, 4096),
        Row("the whole loop (train)", best, 16_384, loop=True),
        Row("Liger's kernels", {"liger": True}, 16_384),  # the last: some of them stay for the whole process
    )
    fits = {"gradient_checkpointing": True, "reshard_after_forward": True}
    continual = (
        Row("checkpointing, resharding", fits, 4096),
        Row("the same, compiled", {**fits, "compile": True}, 4096),
        Row("the same, compiled, micro-batch 8K", {**fits, "compile": True}, 8192),
        Row("the same, weights not freed", {"gradient_checkpointing": True}, 4096),
        Row("adapters of rank 64, checkpointing", {"gradient_checkpointing": True}, 4096, lora=Lora(rank=64, alpha=128.0)),
        Row("adapters of rank 64, compiled", {"gradient_checkpointing": True, "compile": True}, 4096, lora=Lora(rank=64, alpha=128.0)),
    )
    return {
        "general_1_3b": Part(2048, 65_536, from_scratch),
        "general_500m": Part(2048, 65_536, from_scratch),
        "llama3_8b": Part(4096, 16_384, continual),
    }


class RandomSource:
    """Sequences of random tokens; loss on all of them."""

    def __init__(self, length: int, vocab_size: int, *, documents: bool) -> None:
        self.sequence_length, self.document_attention = length, documents
        self._vocab_size = vocab_size

    def __len__(self) -> int:
        return 2**30

    def sequence(self, index: int) -> TrainingSequence:
        generator = np.random.default_rng(index)
        ids = generator.integers(3, self._vocab_size, self.sequence_length)
        ends = np.cumsum(generator.geometric(1 / DOCUMENT_TOKENS, self.sequence_length))
        return TrainingSequence(ids, ids.copy(), np.array([0, *ends[ends < self.sequence_length]]))

    def describe(self, index: int) -> str:
        return f"random sequence {index}"


def matrix_peak(device: Device, size: int) -> float:
    """FLOP/s of products of square bfloat16 matrices."""
    left, right = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    rates = []
    for _ in range(5):
        synchronize(device)
        begun = time.perf_counter()
        for _ in range(20):
            left @ right
        synchronize(device)
        rates.append(20 * 2 * size**3 / (time.perf_counter() - begun))
    return max(rates[1:])


def start(part: str, device: Device, *, tiny: bool) -> PreTrainedModel:
    """A model with random weights, made on the device."""
    with torch.device(device):
        if part == "llama3_8b" and not tiny:
            return LlamaForCausalLM(LlamaConfig(**LLAMA3_8B))
        shape, vocab_size = (TINY, TINY_VOCAB_SIZE) if tiny else (SHAPES[part], VOCAB_SIZE)
        return MistralForCausalLM(mistral_config(shape, vocab_size, bos_token_id=1, eos_token_id=2, pad_token_id=0))


def measure(part: str, row: Row, *, device: Device, tiny: bool, warm_up: int, timed: int) -> dict[str, Any]:
    """Tokens a second, memory and loss of one row."""
    length, step_tokens, _ = parts()[part]
    micro_batch_tokens = row.micro_batch_tokens
    if tiny:
        length, step_tokens, micro_batch_tokens = 64, 256, 128
    model = start(part, device, tiny=tiny)
    if row.lora is not None:
        model.to(torch.bfloat16)
        add_adapters(model, row.lora, seed=0)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    execution = TrainingExecution(micro_batch_tokens=micro_batch_tokens, **row.settings)
    vocab_size = model.config.vocab_size
    source = RandomSource(length, vocab_size, documents=row.documents)
    budget = (warm_up + timed) * step_tokens
    optimization = Optimization(token_budget=budget, batch_tokens=step_tokens, learning_rate=1e-5)
    if row.loop:
        with TemporaryDirectory() as folder:
            told = train(model, source, optimization, execution, out=Path(folder), device=device)
        tokens_a_second, losses = told["tokens_per_second"], [told["first_loss"], told["final_loss"]]
    else:
        tokens_a_second, losses = steps(model, source, optimization, execution, device=device, warm_up=warm_up)
    memory = {"peak_gib": round(torch.cuda.max_memory_allocated() / 2**30, 1)} if device == "cuda" else {}
    return {
        "tokens_per_second": round(tokens_a_second, 1),
        "tflops": tokens_a_second * flops_per_token(model, length) / 1e12,
        **memory,
        "first_loss": round(losses[0], 3),
        "last_loss": round(losses[-1], 3),
        "num_parameters": sum(weight.numel() for weight in model.parameters()),
    }


def steps(
    model: PreTrainedModel, source: RandomSource, optimization: Optimization, execution: TrainingExecution, *, device: Device, warm_up: int
) -> tuple[float, list[float]]:
    """The training loop's steps and nothing else: tokens a second behind the first `warm_up` ones, and losses."""
    vocab_size, count = model.config.vocab_size, optimization.batch_tokens // source.sequence_length
    numbers = range(optimization.num_steps)
    prepared = [StepBatch(source, step * count, count, rank=0, num_processes=1, vocab_size=vocab_size) for step in numbers]
    module = shard(model, join_processes(device), torch.bfloat16, execution)
    optimizer = build_optimizer(model.parameters(), optimization)
    losses, begun = [], 0.0
    for step, batch in enumerate(prepared):
        if step == warm_up:
            synchronize(device)
            begun = time.perf_counter()
        loss = torch.zeros((), device=device)
        for micro_batch in batch.micro_batches(execution.micro_batch_tokens, device):
            part = module(micro_batch) / batch.num_loss_tokens
            part.backward()
            loss += part.detach()
        nn.utils.clip_grad_norm_(model.parameters(), optimization.clip_norm).full_tensor().item()  # the loop looks at it, too
        losses.append(loss.item())
        optimizer.step()
        optimizer.zero_grad()
    synchronize(device)
    return (len(prepared) - warm_up) * optimization.batch_tokens / (time.perf_counter() - begun), losses


def run_part(part: str, *, device: Device, tiny: bool, until: float) -> None:
    """Measure a part's rows, one line of JSON each."""
    torch.set_float32_matmul_precision("high")
    disable_progress_bar()
    for row in parts()[part].rows:
        begun = time.monotonic()
        if tiny:
            row = row._replace(settings={**row.settings, "compile": False})
        if time.time() > until:
            result: dict[str, Any] = {"left_out": "no time was left"}
        elif row.settings.get("liger") and find_spec("liger_kernel") is None:
            result = {"left_out": "liger-kernel is not installed"}
        else:
            try:
                result = measure(part, row, device=device, tiny=tiny, warm_up=1 if tiny else 3, timed=1 if tiny else 5)
            except (ExecutionError, AdapterError) as error:
                result = {"left_out": str(error)}
            except torch.OutOfMemoryError:
                result = {"left_out": "out of memory"}
            except Exception as error:  # one setting that fails must not cost the other rows
                result = {"left_out": f"{type(error).__name__}: {str(error)[:300]}"}
        gc.collect()
        if device == "cuda":
            torch.cuda.empty_cache()
        torch.compiler.reset()
        named = {"part": part, "row": row.name, "micro_batch_tokens": row.micro_batch_tokens, "documents": row.documents, **row.settings}
        print("ROW " + json.dumps({**named, **result, "row_seconds": round(time.monotonic() - begun, 1)}), flush=True)


def describe_device(device: Device, *, tiny: bool) -> None:
    """Print a line of JSON: the device, its measured and its printed peak, versions."""
    given = peak_flops(device)
    described = {
        "device": torch.cuda.get_device_name() if device == "cuda" else "CPU",
        "memory_gib": round(torch.cuda.get_device_properties(0).total_memory / 2**30, 1) if device == "cuda" else None,
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "peak_tflops": round(matrix_peak(device, 128 if tiny else 8192) / 1e12, 3),
        "data_sheet_tflops": None if given is None else given / 1e12,
    }
    print(json.dumps(described))


def run_all(out: Path | None, *, names: Sequence[str], tiny: bool, minutes: float) -> dict[str, Any]:
    """The peak, then each part, each in a process of its own: this one holds nothing on the GPU."""
    begun = time.time()
    command = [sys.executable, "-m", "instpt_assets_tests.benchmarks.gpu_training", *(["--tiny"] if tiny else [])]
    described = subprocess.run([*command, "--part", "device"], stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, Any] = {**json.loads(described.stdout.splitlines()[-1]), "rows": []}
    print("; ".join(f"{name} {value}" for name, value in result.items() if name != "rows"), flush=True)
    peak = result["peak_tflops"]
    for number, part in enumerate(names):
        print(f"\n{part}\n" + _line("setting", "tokens/s", "TFLOP/s", "MFU", "peak GiB"), flush=True)
        # What is left is shared among the parts to come.
        until = time.time() + (begun + 60 * minutes - time.time()) / (len(names) - number)
        process = subprocess.Popen([*command, "--part", part, "--until", str(until)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        for line in process.stdout:
            if not line.startswith("ROW "):
                print(line, end="")
                continue
            row = json.loads(line.removeprefix("ROW "))
            if "tflops" in row:
                row["mfu"] = round(row["tflops"] / peak, 4)
                row["tflops"] = round(row["tflops"], 3)
                figures = (f"{row['tokens_per_second']:,.0f}", f"{row['tflops']:.1f}", f"{row['mfu']:.1%}", str(row.get("peak_gib", "")))
                print(_line(row["row"], *figures), flush=True)
            else:
                print(f"{row['row']:<38}{row['left_out']}", flush=True)
            result["rows"].append(row)
            if out is not None:
                (out / "gpu_training.json").write_text(json.dumps(result, indent=1), encoding="utf-8")
        if process.wait():
            print(f"{part} ended with status {process.returncode}")
    print(f"\n{time.time() - begun:.0f} seconds")
    return result


def synchronize(device: Device) -> None:
    """Wait until the device has done what it was given."""
    if device == "cuda":
        torch.cuda.synchronize()


def _line(name: str, *figures: str) -> str:
    return f"{name:<38}" + "".join(f"{figure:>12}" for figure in figures)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="*", choices=list(parts()), default=list(parts()))
    parser.add_argument("--tiny", action="store_true", help="tiny models on the CPU: a trial of this script")
    parser.add_argument("--minutes", type=float, default=MINUTES)
    parser.add_argument("--out", type=Path, default=os.environ.get("OUT"))
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--until", type=float, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    device: Device = "cpu" if arguments.tiny else "cuda"
    if arguments.tiny:
        torch.set_num_threads(1)
    if arguments.part == "device":
        describe_device(device, tiny=arguments.tiny)
        return
    if arguments.part:
        run_part(arguments.part, device=device, tiny=arguments.tiny, until=arguments.until)
        return
    if device == "cuda" and not torch.cuda.is_available():
        sys.exit("there is no GPU here; --tiny tries the script on the CPU")
    out = None if arguments.out is None else Path(arguments.out)
    run_all(out, names=arguments.parts, tiny=arguments.tiny, minutes=arguments.minutes)


if __name__ == "__main__":
    main()
