"""Processes and sharding: FSDP2 over all processes, with one process as with many, so there is one code path.

Master weights, gradients and the optimizer's state are float32 shards; the forward and backward pass see weights in the recipe's dtype.
"""

import os
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from instpt_assets.recipe.execution import Device, Execution, TrainingExecution
from instpt_assets.training.loss import SummedLoss
from instpt_assets.training.settings import ExecutionError, apply_settings, decoder_layers

_TIMEOUT = timedelta(hours=1)  # rank 0 may hash and write a large checkpoint while the others wait


def num_local_processes(execution: Execution) -> int:
    """Processes of a training on this node: as many as the execution says, else one a GPU, and one on the CPU.

    Raises:
        ExecutionError: there are fewer GPUs than processes.
    """
    given = execution.training.num_processes
    if execution.device == "cpu":
        return given or 1
    num_gpus = torch.cuda.device_count()
    if (given or 1) > num_gpus:
        raise ExecutionError(
            f"training.num_processes {given or 1} wants a GPU each, and this node has {num_gpus}: lower it, or leave it out"
        )
    return given or num_gpus


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
    """Shard a model over the mesh and wrap it in its loss; layers are gathered one at a time.

    Args:
        model: float32 weights, sharded in place; of several processes the first alone needs to hold any (the others: device meta).
        mesh: of all processes.
        dtype: of the forward and backward pass.
        execution: how it is computed.

    Raises:
        ExecutionError: hardware, packages or the model cannot do what the execution says.
    """
    apply_settings(model, execution, device=mesh.device_type, dtype=dtype)
    policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32)
    # What one process gathers is a copy in the other dtype; that of frozen weights would be as large as they are.
    frozen = not all(weight.requires_grad for weight in model.parameters())
    reshard = execution.reshard_after_forward
    if reshard is None:
        reshard = mesh.size() > 1 or frozen
    module = SummedLoss(model, execution, mesh.device_type)
    for unit in (*decoder_layers(model), module):
        if mesh.size() > 1:
            _take_from_first(unit, mesh)
        fully_shard(unit, mesh=mesh, mp_policy=policy, reshard_after_forward=reshard and unit is not module)
    assert all(isinstance(weight, DTensor) for weight in module.parameters()), "a parameter is not sharded"
    return module.train()


def _take_from_first(unit: nn.Module, mesh: DeviceMesh) -> None:
    """Give every process the first one's weights and buffers of a part of the model; the others may hold none yet (device meta).

    Args:
        unit: the part; what in it is sharded already is left alone.
        mesh: of all processes.
    """
    taken: dict[torch.Tensor, torch.Tensor] = {}  # tied weights stay tied
    for module in unit.modules():
        for tensors in (module._parameters, module._buffers):
            for name, tensor in tensors.items():
                if tensor is None or isinstance(tensor, DTensor):
                    continue
                if tensor not in taken:
                    is_empty = tensor.is_meta
                    full = torch.empty_like(tensor, device=mesh.device_type) if is_empty else tensor.detach().to(mesh.device_type)
                    dist.broadcast(full, src=0)
                    taken[tensor] = nn.Parameter(full, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else full
                tensors[name] = taken[tensor]


def summed(values: list[float], device: Device) -> list[float]:
    """Sums over all processes."""
    tensor = torch.tensor(values, dtype=torch.float64, device=device)
    dist.all_reduce(tensor)
    return tensor.tolist()
