"""The wired start copies before any training, finds where answers begin, and refuses shapes that cannot hold the circuits."""

import pytest
import torch
from transformers import MistralConfig, MistralForCausalLM

from instpt_assets.training.wired import wire_induction

VOCABULARY, BOS, ANSWER, QUESTION_MARK = 512, 1, 511, 7


def model(**changes) -> MistralForCausalLM:
    torch.manual_seed(0)
    shape = {
        "vocab_size": VOCABULARY,
        "hidden_size": 256,
        "intermediate_size": 256,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "tie_word_embeddings": True,
        "bos_token_id": BOS,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
        **changes,
    }
    return MistralForCausalLM(MistralConfig(**shape))


def random_tokens(*shape: int) -> torch.Tensor:
    return torch.randint(8, 511, shape, generator=torch.Generator().manual_seed(1))


def copied_share(network: MistralForCausalLM, *, distance: int = 200, length: int = 30) -> float:
    """Share of a span's tokens that greedy prediction repeats when the span comes a second time."""
    before = random_tokens(4, distance)
    before[:, 0] = BOS
    span = before[:, 20 : 20 + length]
    with torch.no_grad():
        predicted = network(torch.cat([before, span], dim=1)).logits[:, distance:-1].argmax(-1)
    return (predicted == span[:, 1:]).float().mean().item()


def answered_share(network: MistralForCausalLM, *, num_questions: int = 40) -> float:
    """How often the first prediction behind `<span of the context> ? <ANS>` is the token that follows the span there."""
    context = random_tokens(num_questions, 150)
    context[:, 0] = BOS
    starts = range(10, 10 + 3 * num_questions, 3)
    asked = torch.stack([row[start : start + 4] for row, start in zip(context, starts, strict=True)])
    following = torch.stack([row[start + 4] for row, start in zip(context, starts, strict=True)])
    end = torch.tensor([[QUESTION_MARK, ANSWER]]).expand(num_questions, 2)
    with torch.no_grad():
        predicted = network(torch.cat([context, asked, end], dim=1)).logits[:, -1].argmax(-1)
    return (predicted == following).float().mean().item()


def test_a_wired_model_repeats_a_random_span_before_training():
    network = model(num_hidden_layers=2)
    assert copied_share(network) < 0.1
    wire_induction(network)
    assert copied_share(network) > 0.7


def test_a_wired_model_begins_an_answer_where_the_context_goes_on_after_the_question():
    network = model()
    wire_induction(network)
    assert answered_share(network) < 0.1
    wire_induction(network, answer_id=ANSWER)
    assert answered_share(network) > 0.4
    assert copied_share(network) > 0.7


def test_copying_survives_deeper_models_and_bfloat16():
    network = model(num_hidden_layers=4)
    wire_induction(network, answer_id=ANSWER)
    assert copied_share(network.to(torch.bfloat16)) > 0.6


def test_the_same_seed_gives_the_same_weights_whatever_was_there_before():
    one, other = model(), model()
    with torch.no_grad():
        for weight in other.parameters():
            weight.zero_()
    wire_induction(one, answer_id=ANSWER, seed=3)
    wire_induction(other, answer_id=ANSWER, seed=3)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    wire_induction(other, answer_id=ANSWER, seed=4)
    assert not torch.equal(one.model.layers[0].mlp.up_proj.weight, other.model.layers[0].mlp.up_proj.weight)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"num_hidden_layers": 1}, "needs 3 layers"),
        ({"num_key_value_heads": 1}, "num_kv_heads"),
        ({"num_attention_heads": 1, "num_key_value_heads": 1}, "even num_heads"),
        ({"tie_word_embeddings": False}, "tie_word_embeddings"),
        ({"num_attention_heads": 32, "num_key_value_heads": 32}, "fewer heads"),
    ],
)
def test_a_shape_that_cannot_hold_the_circuits_is_refused(changes, problem):
    with pytest.raises(ValueError, match=problem):
        wire_induction(model(**changes), answer_id=ANSWER)
