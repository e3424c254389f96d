"""The wired start copies before any training, and refuses shapes that cannot hold the circuit."""

import pytest
import torch
from transformers import MistralConfig, MistralForCausalLM

from instpt_assets.training.wired import wire_induction


def model(**changes) -> MistralForCausalLM:
    torch.manual_seed(0)
    shape = {
        "vocab_size": 512,
        "hidden_size": 256,
        "intermediate_size": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "tie_word_embeddings": True,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
        **changes,
    }
    return MistralForCausalLM(MistralConfig(**shape))


def copied_share(network: MistralForCausalLM, *, distance: int = 200, length: int = 30) -> float:
    """Share of a span's tokens that greedy prediction repeats when the span comes a second time."""
    generator = torch.Generator().manual_seed(1)
    before = torch.randint(8, 512, (4, distance), generator=generator)
    span = before[:, 20 : 20 + length]
    with torch.no_grad():
        predicted = network(torch.cat([before, span], dim=1)).logits[:, distance:-1].argmax(-1)
    return (predicted == span[:, 1:]).float().mean().item()


def test_a_wired_model_repeats_a_random_span_before_training():
    network = model()
    assert copied_share(network) < 0.1
    wire_induction(network)
    assert copied_share(network) > 0.7


def test_copying_survives_deeper_models_and_bfloat16():
    network = model(num_hidden_layers=4)
    wire_induction(network)
    assert copied_share(network.to(torch.bfloat16)) > 0.6


def test_the_same_seed_gives_the_same_weights_whatever_was_there_before():
    one, other = model(), model()
    with torch.no_grad():
        for weight in other.parameters():
            weight.zero_()
    wire_induction(one, seed=3)
    wire_induction(other, seed=3)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    wire_induction(other, seed=4)
    assert not torch.equal(one.model.layers[0].mlp.up_proj.weight, other.model.layers[0].mlp.up_proj.weight)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"num_hidden_layers": 1}, "two layers"),
        ({"num_key_value_heads": 1}, "num_kv_heads"),
        ({"num_attention_heads": 1, "num_key_value_heads": 1}, "even num_heads"),
        ({"tie_word_embeddings": False}, "tie_word_embeddings"),
        ({"num_attention_heads": 32, "num_key_value_heads": 32}, "fewer heads"),
    ],
)
def test_a_shape_that_cannot_hold_the_circuit_is_refused(changes, problem):
    with pytest.raises(ValueError, match=problem):
        wire_induction(model(**changes))
