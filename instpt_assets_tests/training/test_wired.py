"""The wired start copies before any training, and refuses shapes that cannot hold the circuit."""

import pytest
import torch
from transformers import MistralConfig, MistralForCausalLM

from instpt_assets.training.wired import wire_induction


def model(**changes) -> MistralForCausalLM:
    torch.manual_seed(0)
    shape = {
        "vocab_size": 512,
        "hidden_size": 288,
        "intermediate_size": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "num_key_value_heads": 3,
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
    assert copied_share(network) > 0.9


def test_a_wired_model_follows_the_longest_of_two_matches():
    """`… 8 9 10 11 … 7 9 10 12 … 8 9 10` goes on with 11: the last two tokens came twice, the last three once."""
    network = model()
    wire_induction(network)
    ids = torch.randint(16, 512, (16, 120), generator=torch.Generator().manual_seed(1))
    ids[:, 30:34] = torch.tensor([8, 9, 10, 11])
    ids[:, 70:74] = torch.tensor([7, 9, 10, 12])
    ids[:, -3:] = torch.tensor([8, 9, 10])
    with torch.no_grad():
        assert (network(ids).logits[:, -1].argmax(-1) == 11).float().mean() > 0.8


def test_copying_survives_deeper_models_and_bfloat16():
    network = model(num_hidden_layers=4)
    wire_induction(network)
    assert copied_share(network.to(torch.bfloat16)) > 0.8


def test_more_heads_than_three_share_the_work():
    network = model(hidden_size=576, num_attention_heads=6, num_key_value_heads=6)
    wire_induction(network)
    assert copied_share(network) > 0.9


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
        ({"num_hidden_layers": 1}, "num_layers"),
        ({"num_key_value_heads": 1}, "num_kv_heads"),
        ({"num_attention_heads": 4, "num_key_value_heads": 4}, "num_heads"),
        ({"tie_word_embeddings": False}, "tie_word_embeddings"),
        ({"num_attention_heads": 48, "num_key_value_heads": 48}, "rope_theta"),
    ],
)
def test_a_shape_that_cannot_hold_the_circuit_is_refused(changes, problem):
    with pytest.raises(ValueError, match=problem):
        wire_induction(model(**changes))
