"""The recipe refuses exactly the shapes that a wired start cannot be made of."""

from typing import Any

import pytest

from instpt_assets.recipe.training import ModelShape
from instpt_assets.recipe.wired_start import wired_start_problem

FITS = {"hidden_size": 96, "num_layers": 2, "num_heads": 3, "intermediate_size": 8, "rope_theta": 1e6, "tie_word_embeddings": True}
SHAPES: list[tuple[dict[str, Any], str | None]] = [
    ({}, None),
    ({"num_kv_heads": 3}, None),
    ({"hidden_size": 60}, "rope_theta: heads of 20 dimensions with rope_theta 1e+06 have 1 rotary frequencies above 0.3 and 5 below"),
    ({"hidden_size": 72}, None),
    ({"rope_theta": 10_000.0}, "rope_theta: heads of 32"),
    ({"num_layers": 1}, "num_layers: "),
    ({"num_heads": 4}, "num_heads: "),
    ({"num_kv_heads": 1}, "num_kv_heads: "),
    ({"tie_word_embeddings": False}, "tie_word_embeddings: "),
]


@pytest.mark.parametrize(("changes", "problem"), SHAPES)
def test_a_wired_start_is_refused_before_and_when_it_is_made(changes: dict[str, Any], problem: str | None) -> None:
    from instpt_assets.training.model import build_model
    from instpt_assets.training.wired import wire_induction

    shape = ModelShape(**{**FITS, **changes})
    told = wired_start_problem(shape)
    assert told is None if problem is None else told is not None and told.startswith(problem)
    model = build_model(shape, 300, seed=0, bos_token_id=1, eos_token_id=2, pad_token_id=0)
    try:
        wire_induction(model)
    except ValueError:
        assert problem is not None
    else:
        assert problem is None
