"""Attention and positions confined to documents: packed into one sequence, documents see nothing of each other.

Position ids start anew with each document. From them transformers derives a block-diagonal causal mask (`find_packed_sequence_indices`) for
the implementations `sdpa`, `eager` and `flex_attention`, in each row of a batch; the first two compute what is masked all the same. Flash
attention takes no mask: it is told where documents begin, in all rows of a batch laid end to end.
"""

import inspect
from typing import Any

import torch
from torch.nn import functional
from transformers import PreTrainedModel

from instpt_assets.errors import UserError
from instpt_assets.training.batches import MicroBatch


class NotConfined(UserError):
    """The model's attention cannot be confined to documents."""


def model_inputs(batch: MicroBatch, implementation: str) -> dict[str, Any]:
    """What a model's forward pass is called with.

    Args:
        batch: confined to documents if it has position ids.
        implementation: of the model's attention, as transformers names it.
    """
    if batch.position_ids is None or not implementation.startswith("flash"):
        return {"input_ids": batch.input_ids, "position_ids": batch.position_ids}
    positions = batch.position_ids.flatten()
    starts = torch.nonzero(positions == 0).flatten()
    # Filled up to a power of two with documents of no tokens, and the longest taken to be as long as a row: compiled layers are compiled
    # anew for every other shape and number.
    bounds = functional.pad(starts, (0, (1 << len(starts).bit_length()) - len(starts)), value=len(positions)).to(torch.int32)
    longest = batch.position_ids.shape[1]
    # So transformers need not look for documents in each layer, which it does in batches of one row only.
    return {
        "input_ids": batch.input_ids.reshape(1, -1),
        "position_ids": positions[None],
        "cu_seq_lens_q": bounds,
        "cu_seq_lens_k": bounds,
        "max_length_q": longest,
        "max_length_k": longest,
    }


def check_confined(model: PreTrainedModel) -> None:
    """Make sure that position ids which start anew confine this model, by a few tokens of two documents.

    What a token sees has a gradient. Models whose layers carry a state from token to token (Mamba, hybrids), or that take no position ids
    (ALiBi), do not pass.

    Args:
        model: not sharded; one without weights (device meta) passes.

    Raises:
        NotConfined: a token depends on a document before its own.
    """
    kind = type(model).__name__
    if "position_ids" not in inspect.signature(model.base_model.forward).parameters:
        raise NotConfined(_refusal(kind, "it takes no position ids"))
    if model.device.type == "meta":
        return
    own = model.config._attn_implementation
    if own not in ("eager", "sdpa"):
        model.set_attn_implementation("eager")  # the mask is transformers' in any case; this one runs everywhere
    try:
        weights = model.get_input_embeddings().weight
        positions = torch.tensor([[0, 1, 2, 3, 0, 1, 2, 3]], device=weights.device)
        embeddings = weights.detach()[1:9][None].clone().requires_grad_()
        with torch.autocast(weights.device.type, torch.bfloat16, cache_enabled=False):  # weights of several types (adapters) work together
            hidden = model.base_model(inputs_embeds=embeddings, position_ids=positions, use_cache=False).last_hidden_state
        probe = torch.linspace(-1, 1, hidden.shape[-1], device=hidden.device, dtype=hidden.dtype) ** 3  # no norm makes it constant
        (gradient,) = torch.autograd.grad((hidden[0, 4:] * probe).sum(), embeddings)
    finally:
        if own != model.config._attn_implementation:
            model.set_attn_implementation(own)
    if gradient[0, :4].any():
        raise NotConfined(_refusal(kind, "a document's tokens depend on the document before it in the sequence"))


def _refusal(kind: str, why: str) -> str:
    return f"the attention of {kind} cannot be confined to documents ({why}): set document_attention: false, or take another model"
