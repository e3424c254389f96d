"""Execution settings of a training that are carried out on the model itself, refused where the machine lacks what they need."""

import shutil
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec

import torch
from torch import nn
from transformers import PreTrainedModel

from instpt_assets.errors import UserError
from instpt_assets.recipe.execution import TrainingExecution

_SCALED_LOGITS = ("final_logit_softcapping", "logit_scale", "logits_scaling", "lm_head_multiplier")
"""Fields of configurations whose models do more to the logits than their head."""

_VARIANTS = 64
"""So many times a layer's code is compiled: for each size of micro-batches, with gradients and without, for each kind of layer. Beyond its
limit, by default 8, torch goes on uncompiled."""


class ExecutionError(UserError):
    """An execution setting that this machine, or this model, cannot have; the message names it."""


def apply_settings(model: PreTrainedModel, execution: TrainingExecution, *, device: str, dtype: torch.dtype) -> None:
    """Set attention, gradient checkpointing, Liger's kernels and compilation on a model, in place.

    Args:
        model: not sharded yet.
        execution: the settings.
        device: where the model is trained.
        dtype: of the forward and backward pass.

    Raises:
        ExecutionError: hardware, packages or the model cannot do it.
    """
    for problem in _problems(model, execution, device=device, dtype=dtype):
        raise ExecutionError(problem)
    try:
        model.set_attn_implementation(execution.attention)
    except (ImportError, ValueError) as error:
        raise ExecutionError(f"training.attention '{execution.attention}': {error}; 'sdpa' always works") from error
    if execution.liger:
        liger = import_module("liger_kernel.transformers")
        liger._apply_liger_kernel_to_instance(model, cross_entropy=False, fused_linear_cross_entropy=False)  # the loss is `training.loss`'s
    if execution.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if execution.compile:
        torch._dynamo.config.recompile_limit = max(_VARIANTS, torch._dynamo.config.recompile_limit)
        for layer in decoder_layers(model):
            layer.compile(dynamic=False)


def decoder_layers(model: PreTrainedModel) -> nn.ModuleList:
    """The model's transformer blocks: the list of modules that holds most of its weights."""
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    if not lists:
        raise ExecutionError(f"{type(model).__name__} has no list of layers, so it cannot be sharded: take a model with decoder layers")
    return max(lists, key=lambda layers: sum(weight.numel() for weight in layers.parameters()))


def _problems(model: PreTrainedModel, execution: TrainingExecution, *, device: str, dtype: torch.dtype) -> Iterator[str]:
    attention = execution.attention
    if attention in ("flex_attention", "flash_attention_2") and device == "cpu":
        yield f"training.attention '{attention}' trains on GPUs only: on the CPU take 'sdpa'"
    if attention == "flash_attention_2" and find_spec("flash_attn") is None:
        yield "training.attention 'flash_attention_2' needs the package flash-attn: install it, or take 'sdpa'"
    if attention == "flash_attention_2" and dtype == torch.float32:
        yield "training.attention 'flash_attention_2' computes in bfloat16 only, and the recipe's dtype is float32: take 'sdpa'"
    if execution.compile and device == "cpu" and not any(map(shutil.which, ("g++", "clang++", "c++"))):
        yield "training.compile needs a C++ compiler on the CPU: install g++, or leave it off"
    if execution.compile and device == "cuda" and find_spec("triton") is None:
        yield "training.compile needs the package triton: install it, or leave compile off"
    if execution.liger and device == "cpu":
        yield "training.liger's kernels run on GPUs only: leave it off on the CPU"
    elif execution.liger and find_spec("liger_kernel") is None:
        yield "training.liger needs the package liger-kernel: install it, or leave liger off"
    elif execution.liger:
        known = import_module("liger_kernel.transformers.monkey_patch").MODEL_TYPE_TO_APPLY_LIGER_FN
        if model.config.model_type not in known:
            yield f"training.liger: liger-kernel has no kernels for models of the type '{model.config.model_type}': leave liger off"
    for field in _SCALED_LOGITS:
        if getattr(model.config, field, None) not in (None, 1, 1.0):
            yield f"{type(model).__name__} changes its logits ({field}), which this training does not do: take another base model"
