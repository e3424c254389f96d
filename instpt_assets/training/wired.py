"""A wired start: initial weights that already copy.

Writing pairs about a passage is mostly copying from it. From a random start a small model finds the circuit for it (induction: "what came
after this token earlier?") late; here the first two layers begin with it, and everything stays trainable:

- One dimension of the embedding is the same for all tokens. Layer 0's queries and keys read only it, so its attention depends on nothing
  but the distance; rotating the query by one or two steps in the fast dimensions of the rotary embedding makes the first half of the heads
  look at the previous token and the second half at the one before it. Values pass half of the embedding through; the output puts either
  token into a place of its own in the residual stream.
- Layer 1 matches in the slow dimensions, where distance hardly matters: its queries read the current and the previous token, its keys the
  previous token and the one before. So a position attends to those that follow the same token, and among them to those that follow the same
  two tokens, and its output adds what stands there to the prediction.

Embeddings have unit scale (weaker ones are soon washed over by training) and the final norm scales the logits down instead.
"""

import math

import torch
from torch import Tensor, nn
from transformers import MistralConfig, MistralForCausalLM

FAST, SLOW = 0.15, 0.004
"""Radians a position: rotary dimensions that tell neighbours apart, and those that hardly turn within a training sequence."""

_MIN_FREQUENCIES = 3
_CONSTANT = 0.25  # of sqrt(hidden_size): the dimension that all embeddings share
_DISTANCE_SCORE = 75.0  # attention logit of the previous token in layer 0
_MATCH_SCORE = 18.0  # attention logit of a matching token in layer 1 …
_CONTEXT_SCORE = 7.0  # … and what a match of the token before it adds
_COPY_GAIN = 4.0
_LOGIT_SCALE = 1.2  # of 1 / sqrt(hidden_size)


def wire_induction(model: MistralForCausalLM, *, seed: int = 0) -> None:
    """Set all weights of `model` to a random start that holds the induction circuit in its first two layers.

    Args:
        model: A float32 model with tied embeddings and as many key-value heads as heads.
        seed: Seed of the random weights.

    Raises:
        ValueError: The shape cannot hold the circuit: fewer than two layers, an odd number of heads, grouped key-value heads, untied
            embeddings, or heads with too few fast or slow rotary dimensions.
    """
    config = model.config
    width, num_heads = config.hidden_size, config.num_attention_heads
    head_dim = config.head_dim or width // num_heads
    frequencies = _frequencies(config, head_dim)
    fast, slow = frequencies > FAST, frequencies < SLOW
    if config.num_hidden_layers < 2:
        raise ValueError("a wired start needs two layers or more: one finds the previous token, one matches and copies")
    if num_heads % 2:
        raise ValueError("a wired start needs an even num_heads: half of them find the previous token, half the one before it")
    if config.num_key_value_heads != num_heads or head_dim * num_heads != width:
        raise ValueError("a wired start needs num_kv_heads equal to num_heads and heads that fill hidden_size")
    if not config.tie_word_embeddings:
        raise ValueError("a wired start needs tie_word_embeddings: what is copied is an embedding, and must predict its own token")
    if min(int(fast.sum()), int(slow.sum())) < _MIN_FREQUENCIES:
        raise ValueError(
            f"heads of {head_dim} dimensions with rope_theta {config.rope_parameters['rope_theta']:g} have {int(fast.sum())} rotary frequencies "
            f"above {FAST} and {int(slow.sum())} below {SLOW}; a wired start needs {_MIN_FREQUENCIES} of each: use fewer heads"
        )

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        _randomise(model, generator)
        model.model.embed_tokens.weight[:, 0] = _CONSTANT * math.sqrt(width)
        places, projection = _orthogonal(width, generator), _orthogonal(width, generator)
        _wire_distance(model.model.layers[0].self_attn, places, frequencies, fast, num_heads, generator)
        _wire_match_and_copy(model.model.layers[1].self_attn, places, projection, slow, num_heads)


def _frequencies(config: MistralConfig, head_dim: int) -> Tensor:
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim
    return config.rope_parameters["rope_theta"] ** -exponents


def _orthogonal(width: int, generator: torch.Generator) -> Tensor:
    return torch.linalg.qr(torch.randn(width, width, generator=generator))[0]


def _randomise(model: MistralForCausalLM, generator: torch.Generator) -> None:
    """Matrices keep the scale of what they read; what they add to the residual stream starts at a tenth of it."""
    for name, weight in model.named_parameters():
        if weight.dim() == 1:
            weight.fill_(1.0)
            continue
        scale = 1.0 if "embed_tokens" in name else weight.shape[1] ** -0.5
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            scale *= 0.1
        weight.copy_(torch.randn(weight.shape, generator=generator) * scale)
    model.model.norm.weight.fill_(_LOGIT_SCALE / math.sqrt(model.config.hidden_size))


def _wire_distance(
    attention: nn.Module, places: Tensor, frequencies: Tensor, fast: Tensor, num_heads: int, generator: torch.Generator
) -> None:
    width, half = places.shape[0], len(frequencies)
    # Score at distance d of a head that looks back n: gain^2 * constant^2 * sum over fast dimensions of cos((d - n) * frequency) / sqrt(head_dim).
    gain = math.sqrt(_DISTANCE_SCORE * math.sqrt(2 * half) / int(fast.sum())) / (_CONSTANT * math.sqrt(width))
    query, key = (0.01 * torch.randn(width, width, generator=generator) for _ in range(2))
    for head in range(num_heads):
        back = 1 if head < num_heads // 2 else 2
        first = head * 2 * half  # rotary pairs are (i, i + half) in a head
        query[first : first + half, 0] = torch.where(fast, gain * (back * frequencies).cos(), 0.0)
        query[first + half : first + 2 * half, 0] = torch.where(fast, -gain * (back * frequencies).sin(), 0.0)
        key[first : first + half, 0] = torch.where(fast, gain, 0.0)
    carried = _without_constant(torch.eye(width))[: width // 2]
    attention.q_proj.weight.copy_(query)
    attention.k_proj.weight.copy_(key)
    attention.v_proj.weight.copy_(torch.cat([carried, carried]))
    attention.o_proj.weight.copy_(places)


def _wire_match_and_copy(attention: nn.Module, places: Tensor, projection: Tensor, slow: Tensor, num_heads: int) -> None:
    width, head_dim = places.shape[0], 2 * len(slow)
    current = _without_constant(torch.eye(width))[: width // 2]
    previous, before = places[:, : width // 2].T, places[:, width // 2 :].T
    # Every second slow frequency matches the token, the others the one before it.
    second = slow & (slow.cumsum(0) % 2 == 0)
    query, key = torch.zeros(width, width), torch.zeros(width, width)
    for kept, score, asked, offered in ((slow & ~second, _MATCH_SCORE, current, previous), (second, 2 * _CONTEXT_SCORE, previous, before)):
        # Norms halve the product, since the stream holds three tokens by now; each head sums over its dimensions.
        gain = math.sqrt(score * math.sqrt(head_dim) / int(kept.sum()))
        chosen = gain * torch.cat([kept, kept]).float().repeat(num_heads)[:, None] * projection[:, : width // 2] * math.sqrt(2)
        query += chosen @ asked
        key += chosen @ offered
    attention.q_proj.weight.copy_(_without_constant(query))
    attention.k_proj.weight.copy_(_without_constant(key))
    attention.v_proj.weight.copy_(_without_constant(torch.eye(width)))
    attention.o_proj.weight.copy_(_COPY_GAIN * torch.eye(width))


def _without_constant(matrix: Tensor) -> Tensor:
    """`matrix` reading nothing from the dimension that all embeddings share."""
    cleared = matrix.clone()
    cleared[:, 0] = 0.0
    return cleared
