"""The loss of a language model, computed so that the logits of a large vocabulary never stand in memory whole."""

from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from transformers import PreTrainedModel

from instpt_assets.recipe.execution import TrainingExecution
from instpt_assets.training.batches import MicroBatch
from instpt_assets.training.document_attention import model_inputs

_LOGIT_BYTES: dict[str, int] = {"cpu": 2**23, "cuda": 2**29}
"""Of the float32 logits that stand in memory at once, unless the execution says otherwise: on the CPU what stays in its caches."""
_LEAST_CHUNK = 512
"""Tokens: with every chunk the gradient of the whole head is written."""

SumOfLosses = Callable[[Tensor, nn.Linear, Tensor], Tensor]


class SummedLoss(nn.Module):
    """A language model whose forward pass is the summed loss: the head runs on positions with loss only, on some of them at a time.

    Args:
        model: the language model.
        execution: how the loss is computed.
        device: where.
    """

    def __init__(self, model: PreTrainedModel, execution: TrainingExecution, device: str) -> None:
        super().__init__()
        self.model = model
        chunk = execution.loss_chunk_tokens or max(_LEAST_CHUNK, _LOGIT_BYTES[device] // (4 * model.config.vocab_size))
        self._sum_of_losses = _liger() if execution.liger else _chunked(chunk, compiled=execution.compile)

    def forward(self, batch: MicroBatch) -> Tensor:
        """Sum of the cross-entropies [] in nats, float32."""
        inputs = model_inputs(batch, self.model.config._attn_implementation)
        hidden = self.model.base_model(**inputs, use_cache=False).last_hidden_state
        hidden, head = hidden.flatten(0, 1).index_select(0, batch.positions), self.model.get_output_embeddings()
        if type(head) is nn.Linear:
            return self._sum_of_losses(hidden, head, batch.targets)
        return F.cross_entropy(head(hidden).float(), batch.targets, reduction="sum")


def _chunked(chunk: int, *, compiled: bool) -> SumOfLosses:
    """Plain torch, `chunk` tokens at a time."""
    differentiate = torch.compile(_loss_and_gradient, dynamic=True) if compiled else _loss_and_gradient

    def sum_of_losses(hidden: Tensor, head: nn.Linear, targets: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            return _ChunkedLoss.apply(hidden, head.weight, head.bias, targets, chunk, differentiate)
        parts = zip(hidden.split(chunk), targets.split(chunk), strict=True)
        losses = [F.cross_entropy(head(part).float(), following, reduction="sum") for part, following in parts]
        return torch.stack(losses).sum()

    return sum_of_losses


def _liger() -> SumOfLosses:
    """Liger's fused kernel."""
    loss = import_module("liger_kernel.transformers").LigerFusedLinearCrossEntropyLoss(reduction="sum", accum_dtype=torch.float32)
    return lambda hidden, head, targets: loss(head.weight, hidden, targets, head.bias)


def _loss_and_gradient(hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Summed cross-entropy [] and its gradient by the logits [n, vocab_size] (softmax - one-hot), in the dtype of the logits."""
    logits = F.linear(hidden, weight, bias)
    scores, chosen = logits.float(), targets[:, None]
    scores -= scores.amax(-1, keepdim=True)
    chosen_scores = scores.gather(1, chosen)
    sums = scores.exp_().sum(-1, keepdim=True)
    loss = (sums.log() - chosen_scores).sum()
    scores /= sums
    scores.scatter_add_(1, chosen, scores.new_full(chosen.shape, -1.0))
    return loss, scores.to(logits.dtype)


class _ChunkedLoss(torch.autograd.Function):
    """Summed cross-entropy of a linear head. Its gradients are computed with it, chunk by chunk, so that nothing of a chunk is kept."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        chunk: int,
        differentiate: Callable[..., tuple[Tensor, Tensor]],
    ) -> Tensor:
        trains_head = ctx.needs_input_grad[1]
        loss = hidden.new_zeros((), dtype=torch.float32)
        of_hidden = torch.empty_like(hidden)
        # Summed in float32: bfloat16 would lose a little with every chunk.
        of_weight = torch.zeros_like(weight, dtype=torch.float32) if trains_head else None
        of_bias = torch.zeros_like(bias, dtype=torch.float32) if bias is not None else None
        for begin in range(0, len(hidden), chunk):
            part = hidden[begin : begin + chunk]
            part_loss, of_logits = differentiate(part, weight, bias, targets[begin : begin + chunk])
            loss += part_loss
            of_hidden[begin : begin + chunk] = of_logits @ weight
            if of_weight is not None:
                of_weight += of_logits.T @ part
            if of_bias is not None:
                of_bias += of_logits.sum(0, dtype=torch.float32)
        ctx.gradients = (of_hidden, of_weight, of_bias)
        ctx.dtype = weight.dtype
        return loss

    @staticmethod
    def backward(ctx: Any, of_loss: Tensor) -> Any:
        """The gradients, times that of the loss."""
        gradients = (None if gradient is None else gradient.mul_(of_loss).to(ctx.dtype) for gradient in ctx.gradients)
        return *gradients, None, None, None
