"""Which shapes can hold the induction circuit of a wired start (`training.wired`); known before any model is built."""

from instpt_assets.recipe.training import ModelShape

CONTEXT = 3
"""Tokens that the circuit matches; each takes a head, or an equal share of them."""
FAST, SLOW = 0.3, 0.002
"""Radians a position: rotary dimensions above tell neighbours apart, those below hardly turn within a training sequence."""
MIN_SLOW = 2 * CONTEXT
"""Slow rotary frequencies that a head needs to match in; of fast ones it needs one."""


def wired_start_problem(shape: ModelShape) -> str | None:
    """What keeps a model of that shape from holding the circuit, beginning with the field; None if nothing does."""
    if shape.num_layers < 2:
        return "num_layers: a wired start needs two layers or more: one finds the tokens before, one matches and copies"
    if shape.num_heads % CONTEXT:
        return f"num_heads: a wired start needs a multiple of {CONTEXT}: each third looks at another of the tokens before"
    if shape.num_kv_heads not in (None, shape.num_heads):
        return "num_kv_heads: a wired start needs as many as num_heads"
    if not shape.tie_word_embeddings:
        return "tie_word_embeddings: a wired start needs true: what is copied is an embedding, and must predict its own token"
    head_dim = shape.hidden_size // shape.num_heads
    frequencies = [shape.rope_theta ** (-dimension / head_dim) for dimension in range(0, head_dim, 2)]
    num_fast, num_slow = sum(f > FAST for f in frequencies), sum(f < SLOW for f in frequencies)
    if num_fast < 1 or num_slow < MIN_SLOW:
        return (
            f"rope_theta: heads of {head_dim} dimensions with rope_theta {shape.rope_theta:g} have {num_fast} rotary frequencies above {FAST} "
            f"and {num_slow} below {SLOW}; a wired start needs one and {MIN_SLOW}: raise rope_theta, or use wider or fewer heads"
        )
    return None
