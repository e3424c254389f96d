"""A wired start: initial weights that already copy, and find where an answer begins.

Writing pairs about a passage is mostly copying from it. From a random start a small model finds the circuits for it late; here the first
layers begin with them, and everything stays trainable:

- Dimension 0 of the embedding is the same for all tokens. Layer 0's queries and keys read only it, so its attention depends on nothing but
  the distance; rotating the query by one or two steps in the fast dimensions of the rotary embedding makes the first half of the heads look
  at the previous token and the second half at the one before it. Values pass half of the embedding through; the output puts either token
  into a place of its own in the residual stream.
- Layer 1 matches in the slow dimensions, where distance hardly matters (induction): its queries read the current and the previous token,
  its keys the previous token and the one before. So a position attends to those that follow the same token, and among them to those that
  follow the same two tokens, and its output adds what stands there to the prediction.
- Layer 2 does so for answers. Behind a question, `… last word ? <ANS>`, the answer often begins where the context goes on after the
  question's last word. `<ANS>` has a dimension of its own, by which layer 1 fetches the token two back with what stands before it, as if it
  stood here, and layer 2 matches and copies as layer 1 does. All other positions look at `<s>` in layer 2, whose value is nothing.

Embeddings have unit scale (weaker ones are soon washed over by training) and the final norm scales the logits down instead.
"""

import math

import torch
from torch import Tensor, nn
from transformers import MistralConfig, MistralForCausalLM

FAST, SLOW = 0.15, 0.004
"""Radians a position: rotary dimensions that tell neighbours apart, and those that hardly turn within a training sequence."""

_MIN_FREQUENCIES = 3
_CONSTANT = 0.25  # of sqrt(hidden_size): dimension 0 of all embeddings
_FLAG = 1.0  # of sqrt(hidden_size): the dimensions of `<ANS>` and `<s>`
_ANSWER, _FIRST = 1, 2  # these dimensions
_NUM_RESERVED = 3
_DISTANCE_SCORE = 75.0  # attention logit of the token that a distance head looks for
_ANSWER_DISTANCE_SCORE = 200.0  # the same for `<ANS>`, over the matches of layer 1
_MATCH_SCORE = 18.0  # attention logit of a matching token …
_CONTEXT_SCORE = 7.0  # … and what a match of the token before it adds
_REST_SCORE = 300.0  # attention logit of `<s>` in layer 2 for all but `<ANS>`
_COPY_GAIN, _ANSWER_GAIN = 4.0, 10.0
_LOGIT_SCALE = 1.2  # of 1 / sqrt(hidden_size)


def wire_induction(model: MistralForCausalLM, *, answer_id: int | None = None, seed: int = 0) -> None:
    """Set all weights of `model` to a random start that holds the circuits in its first two layers (three with `answer_id`).

    Args:
        model: A float32 model with tied embeddings and as many key-value heads as heads.
        answer_id: Token id of `<ANS>`; without it only copying is wired.
        seed: Seed of the random weights.

    Raises:
        ValueError: The shape cannot hold the circuits: too few layers, an odd number of heads, grouped key-value heads, untied embeddings,
            or heads with too few fast or slow rotary dimensions.
    """
    config = model.config
    width, num_heads = config.hidden_size, config.num_attention_heads
    frequencies = _frequencies(config)
    _check(config, frequencies, num_layers=2 if answer_id is None else 3)
    generator = torch.Generator().manual_seed(seed)
    layers = [layer.self_attn for layer in model.model.layers]
    with torch.no_grad():
        _randomise(model, generator)
        embedding = model.model.embed_tokens.weight
        embedding[:, 0] = _CONSTANT * math.sqrt(width)
        places, projection = _orthogonal(width, generator), _orthogonal(width, generator)
        places[:_NUM_RESERVED] = 0.0
        _wire_distance(layers[0], places, frequencies, num_heads, generator)
        _wire_match_and_copy(layers[1], places, projection, frequencies, num_heads, gain=_COPY_GAIN)
        if answer_id is not None:
            embedding[:, [_ANSWER, _FIRST]] = 0.0
            for token, dimension in ((answer_id, _ANSWER), (config.bos_token_id, _FIRST)):
                embedding[token, 1:] = 0.0
                embedding[token, dimension] = _FLAG * math.sqrt(width)
            _wire_fetch(layers[1], frequencies, num_heads)
            _wire_match_and_copy(layers[2], places, projection, frequencies, num_heads, gain=_ANSWER_GAIN)
            _wire_rest(layers[2], frequencies, num_heads)


def _check(config: MistralConfig, frequencies: Tensor, *, num_layers: int) -> None:
    num_fast, num_slow = int((frequencies > FAST).sum()), int((frequencies < SLOW).sum())
    if config.num_hidden_layers < num_layers:
        raise ValueError(f"a wired start needs {num_layers} layers: the model has {config.num_hidden_layers}")
    if config.num_attention_heads % 2:
        raise ValueError("a wired start needs an even num_heads: half of them find the previous token, half the one before it")
    if config.num_key_value_heads != config.num_attention_heads or 2 * len(frequencies) * config.num_attention_heads != config.hidden_size:
        raise ValueError("a wired start needs num_kv_heads equal to num_heads and heads that fill hidden_size")
    if not config.tie_word_embeddings:
        raise ValueError("a wired start needs tie_word_embeddings: what is copied is an embedding, and must predict its own token")
    if min(num_fast, num_slow) < _MIN_FREQUENCIES:
        raise ValueError(
            f"heads of {2 * len(frequencies)} dimensions with rope_theta {config.rope_parameters['rope_theta']:g} have {num_fast} rotary "
            f"frequencies above {FAST} and {num_slow} below {SLOW}; a wired start needs {_MIN_FREQUENCIES} of each: use fewer heads"
        )


def _frequencies(config: MistralConfig) -> Tensor:
    """Radians a position of a head's rotary pairs [head_dim / 2], falling."""
    head_dim = config.head_dim or config.hidden_size // config.num_attention_heads
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


def _passed(width: int) -> Tensor:
    """The identity but for the reserved dimensions."""
    return torch.diag((torch.arange(width) >= _NUM_RESERVED).float())


def _look_back(attention: nn.Module, head: int, back: int, frequencies: Tensor, *, dimension: int, strength: float, score: float) -> None:
    """Add to a head that positions whose normed stream holds `strength` in `dimension` attend to the token `back` before them."""
    # Score at distance d: sum over fast pairs of cos((d - back) * frequency), scaled so that it is `score` at d = back.
    half, fast = len(frequencies), frequencies > FAST
    gain = math.sqrt(score * math.sqrt(2 * half) / int(fast.sum()))
    constant = _CONSTANT * math.sqrt(attention.q_proj.weight.shape[0])
    first = head * 2 * half  # rotary pairs are (i, i + half) in a head
    query, key = attention.q_proj.weight, attention.k_proj.weight
    query[first : first + half, dimension] += torch.where(fast, gain / strength * (back * frequencies).cos(), 0.0)
    query[first + half : first + 2 * half, dimension] -= torch.where(fast, gain / strength * (back * frequencies).sin(), 0.0)
    key[first : first + half, 0] += torch.where(fast, gain / constant, 0.0)


def _wire_distance(attention: nn.Module, places: Tensor, frequencies: Tensor, num_heads: int, generator: torch.Generator) -> None:
    width = places.shape[0]
    for weight in (attention.q_proj.weight, attention.k_proj.weight):
        weight.copy_(0.01 * torch.randn(width, width, generator=generator))
    for head in range(num_heads):
        back = 1 if head < num_heads // 2 else 2
        _look_back(attention, head, back, frequencies, dimension=0, strength=_CONSTANT * math.sqrt(width), score=_DISTANCE_SCORE)
    carried = _passed(width)[: width // 2]
    attention.v_proj.weight.copy_(torch.cat([carried, carried]))
    attention.o_proj.weight.copy_(places)


def _wire_match_and_copy(
    attention: nn.Module, places: Tensor, projection: Tensor, frequencies: Tensor, num_heads: int, *, gain: float
) -> None:
    width, head_dim = places.shape[0], 2 * len(frequencies)
    current = _passed(width)[: width // 2]
    previous, before = places[:, : width // 2].T, places[:, width // 2 :].T
    # Every second slow pair matches the token, the others the one before it; the slowest is left to `_wire_rest`.
    slow = frequencies < SLOW
    slow[-1] = False
    second = slow & (slow.cumsum(0) % 2 == 0)
    query, key = torch.zeros(width, width), torch.zeros(width, width)
    for kept, score, asked, offered in ((slow & ~second, _MATCH_SCORE, current, previous), (second, 2 * _CONTEXT_SCORE, previous, before)):
        # Norms halve the product, since the stream holds three tokens by now; each head sums over its dimensions.
        scale = math.sqrt(2 * score * math.sqrt(head_dim) / int(kept.sum()))
        chosen = scale * torch.cat([kept, kept]).float().repeat(num_heads)[:, None] * projection[:, : width // 2]
        query += chosen @ asked
        key += chosen @ offered
    attention.q_proj.weight.copy_(query)
    attention.k_proj.weight.copy_(key)
    attention.v_proj.weight.copy_(_passed(width))
    attention.o_proj.weight.copy_(gain * torch.eye(width))


def _wire_fetch(attention: nn.Module, frequencies: Tensor, num_heads: int) -> None:
    strength = _FLAG * math.sqrt(attention.q_proj.weight.shape[0])
    for head in range(num_heads):
        _look_back(attention, head, 2, frequencies, dimension=_ANSWER, strength=strength, score=_ANSWER_DISTANCE_SCORE)


def _wire_rest(attention: nn.Module, frequencies: Tensor, num_heads: int) -> None:
    """All positions attend to `<s>`, in the slowest rotary pair; the flag of `<ANS>` cancels it."""
    width, half = attention.q_proj.weight.shape[0], len(frequencies)
    gain = math.sqrt(_REST_SCORE * math.sqrt(2 * half))
    for head in range(num_heads):
        row = head * 2 * half + half - 1
        attention.q_proj.weight[row, 0] = gain / (_CONSTANT * math.sqrt(width))
        attention.q_proj.weight[row, _ANSWER] = -gain / (_FLAG * math.sqrt(width))
        attention.k_proj.weight[row, _FIRST] = gain / (_FLAG * math.sqrt(width))
