"""A training whose loss or gradient is not finite ends with what a person must know to go on."""

import numpy as np
import pytest
import torch

from instpt_assets.training.guards import Diverged
from instpt_assets.training.model import build_model
from instpt_assets_tests.training.tiny import SHAPE, VOCAB_SIZE, CountingSource

POISON = 2  # a token that no other sequence holds


class PoisonedSource(CountingSource):
    def sequence(self, index):
        sequence = super().sequence(index)
        if index == 13:
            sequence.ids[5] = POISON
        return sequence


def untied_model():
    shape = SHAPE.model_copy(update={"tie_word_embeddings": False})
    return build_model(shape, VOCAB_SIZE, seed=1, bos_token_id=1, eos_token_id=2, pad_token_id=0)


def test_the_sequence_that_a_bad_loss_comes_from_is_named(run, tmp_path):
    model = untied_model()
    with torch.no_grad():
        model.get_input_embeddings().weight[POISON] = torch.nan
    with pytest.raises(Diverged) as error:
        run(model=model, source=PoisonedSource(), checkpoint_steps=[1, 2])
    message = str(error.value)
    assert message.startswith("step 3: loss nan, gradient norm nan; it comes from 1 of its 6 sequences: sequence 13 (count 13); ")
    assert f"the last good checkpoint is checkpoint-2 (in {tmp_path}/out). " in message
    assert message.endswith("or take them out")


def test_weights_that_overflow_are_told_from_bad_documents(run):
    model = untied_model()
    with torch.no_grad():
        model.lm_head.weight.fill_(3e38)
    with pytest.raises(
        Diverged,
        match=r"step 1: loss \w+, .* each of its 6 sequences alone is not finite, so the weights are at fault: sequence 0 \(count 0\).* and 1 more, up to sequence 5; no checkpoint was due",
    ):
        run(model=model)


def test_a_gradient_that_overflows_alone_stops_too(run):
    class Exploding(torch.autograd.Function):
        @staticmethod
        def forward(ctx, value):
            return value.clone()

        @staticmethod
        def backward(ctx, gradient):
            return gradient * torch.inf

    model = untied_model()
    model.model.norm.register_forward_hook(lambda module, inputs, output: Exploding.apply(output))
    with pytest.raises(
        Diverged, match=r"step 1: loss 4\.\d+, gradient norm (inf|nan); the loss of each of its 6 sequences alone is finite: "
    ):
        run(model=model)


def test_a_rerun_of_a_diverged_training_goes_on_from_its_state_and_says_the_same(run, tmp_path, monkeypatch):
    monkeypatch.setattr("instpt_assets.training.keeper._SAVING_SHARE", np.inf)
    for name in ("first", "again"):
        model = untied_model()
        with torch.no_grad():
            model.get_input_embeddings().weight[POISON] = torch.nan
        with pytest.raises(Diverged, match=r"step 3: .* sequence 13 .*; no checkpoint was due before it, a state was saved after step 2 "):
            run(name, model=model, source=PoisonedSource(), state_folder=tmp_path / "state", save_seconds=0.0)
