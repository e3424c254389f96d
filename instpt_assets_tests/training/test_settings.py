"""Execution settings change how a step is computed, and its figures by rounding only."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from instpt_assets.recipe.execution import TrainingExecution
from instpt_assets.training.batches import StepBatch
from instpt_assets.training.distributed import join_processes, shard, summed
from instpt_assets.training.loss import _chunked
from instpt_assets.training.model import build_model
from instpt_assets.training.optimizer import build_optimizer
from instpt_assets.training.settings import ExecutionError
from instpt_assets_tests.training.tiny import LENGTH, SHAPE, VOCAB_SIZE, CountingSource, optimization


def losses_and_norms(dtype: torch.dtype = torch.float32, steps: int = 3, **settings: Any) -> list[float]:
    """Loss and gradient norm of a few steps, over all processes."""
    torch.set_num_threads(1)
    model = build_model(SHAPE, VOCAB_SIZE, seed=1, bos_token_id=1, eos_token_id=2, pad_token_id=0)
    mesh = join_processes("cpu")
    module = shard(model, mesh, dtype, TrainingExecution(**settings))
    optimizer = build_optimizer(model.parameters(), optimization())
    figures = []
    for step in range(steps):
        rank, num_processes = mesh.get_rank(), mesh.size()
        batch = StepBatch(CountingSource(unlearned=9), step * 4, 4, rank=rank, num_processes=num_processes, vocab_size=VOCAB_SIZE)
        (loss_tokens,) = summed([batch.num_loss_tokens], "cpu")
        loss_sum = 0.0
        for micro_batch in batch.micro_batches(2 * LENGTH, "cpu"):
            loss = module(micro_batch)
            (loss * num_processes / loss_tokens).backward()
            loss_sum += loss.item() / loss_tokens
        figures += summed([loss_sum], "cpu")
        figures.append(nn.utils.clip_grad_norm_(model.parameters(), 1.0).full_tensor().item())
        optimizer.step()
        optimizer.zero_grad()
    return figures


@pytest.mark.parametrize(
    "settings",
    [
        {"attention": "eager"},
        {"gradient_checkpointing": True},
        {"loss_chunk_tokens": 7},
        {"reshard_after_forward": True},
        {"gradient_checkpointing": True, "reshard_after_forward": True, "loss_chunk_tokens": 50},
    ],
    ids=lambda settings: "-".join(settings),
)
def test_settings_change_nothing_but_rounding(settings: dict[str, Any]) -> None:
    plain = losses_and_norms()
    assert plain[-2] < plain[0] - 0.1  # it learns: the figures are not those of one set of weights
    assert losses_and_norms(**settings) == pytest.approx(plain, abs=1e-5)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.parametrize("checkpointing", [False, True])
def test_compiled_layers_train_alike(checkpointing: bool) -> None:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    assert losses_and_norms(compile=True, gradient_checkpointing=checkpointing) == pytest.approx(losses_and_norms(), abs=1e-5)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 2  # all layers share one, the loss has the other
    assert not torch._dynamo.utils.counters["graph_break"]


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_compiled_layers_may_have_more_sizes_of_micro_batches_than_torch_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch._dynamo.config, "recompile_limit", 8)
    model = build_model(SHAPE, VOCAB_SIZE, seed=1, bos_token_id=1, eos_token_id=2, pad_token_id=0)
    shard(model, join_processes("cpu"), torch.float32, TrainingExecution(compile=True))
    assert torch._dynamo.config.recompile_limit >= 32


@pytest.mark.slow
def test_settings_change_nothing_with_two_processes_either(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--module", __name__]
    subprocess.run([*command, str(tmp_path / "figures.json")], check=True, timeout=200)
    plain = losses_and_norms()
    for settings, figures in json.loads((tmp_path / "figures.json").read_text()):
        assert figures == pytest.approx(plain, abs=1e-5), settings


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bias", [False, True])
def test_the_loss_in_chunks_is_that_of_whole_logits(dtype: torch.dtype, bias: bool) -> None:
    torch.manual_seed(0)
    head = nn.Linear(16, 300, bias=bias, dtype=dtype)
    hidden, targets = torch.randn(50, 16, dtype=dtype, requires_grad=True), torch.randint(0, 300, (50,))
    figures = {}
    for name in ("whole", 50, 13):
        loss = (
            F.cross_entropy(head(hidden).float(), targets, reduction="sum")
            if name == "whole"
            else _chunked(name, compiled=False)(hidden, head, targets)
        )
        (0.25 * loss).backward()
        weights = [hidden, *head.parameters()]
        figures[name] = [loss.detach(), *(weight.grad for weight in weights)]
        for weight in weights:
            weight.grad = None
    rounding = 1e-5 if dtype == torch.float32 else 2**-7
    for name in (50, 13):
        for value, whole in zip(figures[name], figures["whole"], strict=True):
            assert value.dtype == whole.dtype
            assert (value - whole).abs().max() <= rounding * whole.abs().max(), name
    with torch.no_grad():
        assert _chunked(13, compiled=False)(hidden, head, targets).item() == pytest.approx(figures["whole"][0].item(), rel=1e-6)


def test_logits_of_a_large_vocabulary_never_stand_in_memory_whole() -> None:
    sizes = []

    class Sizes(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = operation(*args, **(kwargs or {}))
            sizes.extend(part.numel() for part in (result if isinstance(result, tuple) else (result,)) if isinstance(part, torch.Tensor))
            return result

    head = nn.Linear(4, 10_000, bias=False)
    hidden = torch.randn(256, 4, requires_grad=True)
    with Sizes():
        _chunked(16, compiled=False)(hidden, head, torch.zeros(256, dtype=torch.int64)).backward()
    assert max(sizes) == 16 * 10_000


def test_a_step_without_any_loss_has_gradients_of_zero() -> None:
    """Its process must take part in the others' collectives."""
    head = nn.Linear(4, 10, bias=False)
    hidden = torch.randn(0, 4, requires_grad=True)
    loss = _chunked(16, compiled=False)(hidden, head, torch.zeros(0, dtype=torch.int64))
    loss.backward()
    assert loss.item() == 0.0 and head.weight.grad.abs().sum() == 0.0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"attention": "flex_attention"}, "training.attention 'flex_attention' trains on GPUs only: on the CPU take 'sdpa'"),
        ({"attention": "flash_attention_2"}, "training.attention 'flash_attention_2' trains on GPUs only"),
        ({"liger": True}, "training.liger's kernels run on GPUs only"),
    ],
)
def test_what_the_machine_lacks_is_told_before_the_first_step(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ExecutionError, match=message):
        losses_and_norms(**settings)


def test_compiling_without_a_compiler_is_told_before_the_first_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ExecutionError, match="training.compile needs a C\\+\\+ compiler"):
        losses_and_norms(compile=True)


if __name__ == "__main__":  # one of two processes
    of_two = [{}, {"gradient_checkpointing": True}, {"reshard_after_forward": False}, {"compile": True, "gradient_checkpointing": True}]
    found = [(settings, losses_and_norms(**settings)) for settings in of_two]
    if os.environ["RANK"] == "0":
        Path(sys.argv[1]).write_text(json.dumps(found), encoding="utf-8")
