"""Processes and sharding: FSDP2 over all processes, with one process as with many, so there is one code path.

Master weights, gradients and the optimizer's state are float32 shards; the forward and backward pass see weights in the recipe's dtype.
"""

import os
from datetime import timedelta

import torch
import torch.distributed as dist
import torch.nn.functional as F  # noqa: N812
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from instpt_assets.recipe.execution import Device, TrainingExecution
from instpt_assets.training.batches import MicroBatch

_TIMEOUT = timedelta(hours=1)  # rank 0 may hash and write a large checkpoint while the others wait


class SummedLoss(nn.Module):
    """A language model whose forward pass is the summed loss: the head runs on positions with loss only."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: MicroBatch) -> torch.Tensor:
        """Sum of the cross-entropies [] in nats, float32."""
        hidden = self.model.base_model(input_ids=batch.input_ids, use_cache=False).last_hidden_state
        logits = self.model.get_output_embeddings()(hidden.flatten(0, 1)[batch.positions])
        return F.cross_entropy(logits.float(), batch.targets, reduction="sum")


def set_threads(num_threads: int | None, num_processes: int) -> None:
    """Give this process its share of the CPU threads (by default of the cores that it may use)."""
    torch.set_num_threads(max(1, (num_threads or len(os.sched_getaffinity(0))) // num_processes))


def join_processes(device: Device) -> DeviceMesh:
    """The mesh of all processes: torchrun's, or this one alone. Safe to call again."""
    if device == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    if not dist.is_initialized():
        backend = "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo"
        if "TORCHELASTIC_RUN_ID" in os.environ:
            dist.init_process_group(backend, timeout=_TIMEOUT)
        else:
            dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    return init_device_mesh(device, (dist.get_world_size(),))


def shard(model: PreTrainedModel, mesh: DeviceMesh, dtype: torch.dtype, execution: TrainingExecution) -> SummedLoss:
    """Shard a float32 model over the mesh and wrap it in its loss; layers are gathered one at a time."""
    policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32)
    if execution.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    for layer in model.base_model.layers:
        if execution.compile:
            layer.compile(dynamic=False)
        fully_shard(layer, mesh=mesh, mp_policy=policy, reshard_after_forward=mesh.size() > 1)
    module = SummedLoss(model)
    fully_shard(module, mesh=mesh, mp_policy=policy, reshard_after_forward=False)
    assert all(isinstance(weight, DTensor) for weight in module.parameters()), "a parameter is not sharded"
    return module.train()


def summed(values: list[float], device: Device) -> list[float]:
    """Sums over all processes."""
    tensor = torch.tensor(values, dtype=torch.float64, device=device)
    dist.all_reduce(tensor)
    return tensor.tolist()
