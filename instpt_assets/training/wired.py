"""A wired start: initial weights that already copy.

Writing pairs about a passage is mostly copying from it. From a random start a small model finds the circuit for it (induction: "what came
after these tokens earlier?") late; here the first two layers begin with it, and everything stays trainable:

- The residual stream is divided into four lanes of equal width. Token embeddings are random in the first and zero in the others, but for one
  dimension outside the lanes, which is the same for all tokens.
- Layer 0's queries and keys read only that dimension, so its attention depends on nothing but the distance; rotating the query by one, two
  or three steps in the fast dimensions of the rotary embedding makes a head look that far back. It writes the token there into lane 1, 2 or 3.
- Layer 1 matches in the slow dimensions, where distance hardly matters: its queries read the current token and the two before it (lanes 0 to
  2), its keys the three tokens before (lanes 1 to 3). So a position attends to those that follow the same three tokens, else the same two, else
  the same one, and its output adds what stands there to the prediction.

Embeddings have unit scale (weaker ones are soon washed over by training) and the final norm scales the logits down instead.
"""

import math

import torch
from torch import Tensor, nn
from transformers import MistralConfig, MistralForCausalLM

from instpt_assets.recipe.training import ModelShape
from instpt_assets.recipe.wired_start import CONTEXT, FAST, SLOW, wired_start_problem

_CONSTANT = 0.25  # of sqrt(hidden_size): the dimension that all embeddings share
_DISTANCE_SCORE = 50.0  # attention logit of the token at a head's distance in layer 0
_MATCH_SCORES = (
    25.0,
    15.0,
    8.0,
)  # attention logits that a match of the current token, of the one before and of the next before add in layer 1
_COPY_GAIN = 4.0
_LOGIT_SCALE = 1.2  # of 1 / sqrt(hidden_size)


def wire_induction(model: MistralForCausalLM, *, seed: int = 0) -> None:
    """Set all weights of `model` to a random start that holds the induction circuit in its first two layers.

    Args:
        model: A float32 model with tied embeddings and as many key-value heads as heads.
        seed: Seed of the random weights.

    Raises:
        ValueError: The shape cannot hold the circuit (`wired_start_problem`).
    """
    config = model.config
    if problem := wired_start_problem(_shape(config)):
        raise ValueError(problem)
    width, num_heads = config.hidden_size, config.num_attention_heads
    frequencies = _frequencies(config)
    fast, slow = frequencies > FAST, frequencies < SLOW
    num_parts = num_heads // CONTEXT
    lane_width = (width - 1) // (CONTEXT + 1) // num_parts * num_parts
    lanes = [slice(1 + i * lane_width, 1 + (i + 1) * lane_width) for i in range(CONTEXT + 1)]
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        _randomise(model, generator)
        embedding = model.model.embed_tokens.weight
        embedding[:, lanes[0].stop :] = 0.0
        embedding[:, 0] = _CONSTANT * math.sqrt(width)
        _wire_distance(model.model.layers[0].self_attn, lanes, frequencies, fast, num_heads, generator)
        _wire_match_and_copy(model.model.layers[1].self_attn, lanes, slow, num_heads, generator)


def _shape(config: MistralConfig) -> ModelShape:
    return ModelShape(
        hidden_size=config.hidden_size,
        num_layers=config.num_hidden_layers,
        num_heads=config.num_attention_heads,
        num_kv_heads=config.num_key_value_heads,
        intermediate_size=config.intermediate_size,
        rope_theta=config.rope_parameters["rope_theta"],
        tie_word_embeddings=config.tie_word_embeddings,
    )


def _frequencies(config: MistralConfig) -> Tensor:
    head_dim = config.hidden_size // config.num_attention_heads
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim
    return config.rope_parameters["rope_theta"] ** -exponents


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


def _norm(width: int, lane_width: int, num_lanes: int) -> float:
    """Root mean square of a stream that holds the shared dimension and so many lanes of unit scale: what a norm divides by."""
    return math.sqrt(_CONSTANT**2 + num_lanes * lane_width / width)


def _wire_distance(
    attention: nn.Module, lanes: list[slice], frequencies: Tensor, fast: Tensor, num_heads: int, generator: torch.Generator
) -> None:
    half = len(frequencies)
    width, num_parts, lane_width = 2 * half * num_heads, num_heads // CONTEXT, lanes[0].stop - lanes[0].start
    part_width, norm = lane_width // num_parts, _norm(width, lane_width, 1)
    # Score at distance d of a head that looks back n: gain^2 * constant^2 * sum over fast dimensions of cos((d - n) * frequency) / sqrt(head_dim).
    gain = math.sqrt(_DISTANCE_SCORE * math.sqrt(2 * half) / int(fast.sum())) / (_CONSTANT * math.sqrt(width) / norm)
    query, key = (0.01 * torch.randn(width, width, generator=generator) for _ in range(2))
    value, output = torch.zeros(width, width), torch.zeros(width, width)
    for head in range(num_heads):
        part, back = head // CONTEXT, head % CONTEXT + 1
        first = head * 2 * half  # rotary pairs are (i, i + half) in a head
        query[first : first + half, 0] = torch.where(fast, gain * (back * frequencies).cos(), 0.0)
        query[first + half : first + 2 * half, 0] = torch.where(fast, -gain * (back * frequencies).sin(), 0.0)
        key[first : first + half, 0] = torch.where(fast, gain, 0.0)
        _connect(value, output, first, lanes[0].start + part * part_width, lanes[back].start + part * part_width, part_width, norm)
    _set(attention, query, key, value, output)


def _wire_match_and_copy(attention: nn.Module, lanes: list[slice], slow: Tensor, num_heads: int, generator: torch.Generator) -> None:
    half = len(slow)
    width, num_parts, lane_width = 2 * half * num_heads, num_heads // CONTEXT, lanes[0].stop - lanes[0].start
    part_width, norm = lane_width // num_parts, _norm(width, lane_width, CONTEXT + 1)
    query, key, value, output = (torch.zeros(width, width) for _ in range(4))
    for head in range(num_heads):
        first = head * 2 * half
        for i, score in enumerate(_MATCH_SCORES):
            # Each token matched has its own share of the slow dimensions, onto which its lane is projected at random.
            pairs = slow.nonzero().flatten()[i::CONTEXT] + first
            rows = torch.cat([pairs, pairs + half])
            size = max(lane_width, len(rows))
            projection = torch.linalg.qr(torch.randn(size, size, generator=generator))[0][: len(rows), :lane_width]
            gain = norm * math.sqrt(score * math.sqrt(2 * half) / min(len(rows), lane_width))
            query[rows, lanes[i]] = gain * projection
            key[rows, lanes[i + 1]] = gain * projection
        place = lanes[0].start + head // CONTEXT * part_width
        _connect(value, output, first, place, place, part_width, _COPY_GAIN / CONTEXT)
    _set(attention, query, key, value, output)


def _connect(value: Tensor, output: Tensor, row: int, source: int, target: int, size: int, scale: float) -> None:
    """Let the head dimensions from `row` carry the stream's dimensions from `source` to those from `target`."""
    for i in range(size):
        value[row + i, source + i] = scale
        output[target + i, row + i] = 1.0


def _set(attention: nn.Module, query: Tensor, key: Tensor, value: Tensor, output: Tensor) -> None:
    for projection, weight in (("q_proj", query), ("k_proj", key), ("v_proj", value), ("o_proj", output)):
        getattr(attention, projection).weight.copy_(weight)
