"""Documents packed into one sequence see nothing of each other: as if each stood alone."""

import numpy as np
import pytest
import torch
from torch.nn import functional
from transformers import BloomConfig, BloomForCausalLM, JambaConfig, JambaForCausalLM, modeling_flash_attention_utils

from instpt_assets.mixture.sequences import NO_LOSS, TrainingSequence
from instpt_assets.training.batches import StepBatch
from instpt_assets.training.document_attention import NotConfined, check_confined, model_inputs
from instpt_assets.training.log import read_log
from instpt_assets.training.model import build_model
from instpt_assets_tests.training.tiny import LENGTH, SHAPE, VOCAB_SIZE, CountingSource, optimization

EOS = 2
STARTS = [[0, 1, 2, 14], [0, 20], [0], [0, 5, 30]]


class PackedSource(CountingSource):
    """Random documents, each ended by EOS; every fourth sequence ends in two tokens of padding."""

    def __init__(self, *, document_attention: bool = True, num_sequences: int = 64) -> None:
        super().__init__(num_sequences)
        self.document_attention = document_attention

    def sequence(self, index: int) -> TrainingSequence:
        starts = np.array(STARTS[index % 4])
        ids = np.random.default_rng(index).integers(3, VOCAB_SIZE, LENGTH)
        ids[np.append(starts[1:], LENGTH) - 1] = EOS
        labels = ids.copy()
        if index % 4 == 3:
            ids[30:], labels[30:] = EOS, NO_LOSS
        return TrainingSequence(ids, labels, starts)


def new_model():
    torch.manual_seed(0)
    model = build_model(SHAPE, VOCAB_SIZE, seed=1, bos_token_id=1, eos_token_id=EOS, pad_token_id=0)
    for weight in model.parameters():
        weight.data.add_(torch.randn_like(weight), alpha=0.2)  # so that attention is far from even
    return model.train()


def batch_of(source, count=4):
    return StepBatch(source, 0, count, rank=0, num_processes=1, vocab_size=VOCAB_SIZE)


def assert_as_if_alone(model):
    (batch,) = batch_of(PackedSource()).micro_batches(4 * LENGTH, "cpu")
    inputs = model_inputs(batch, model.config._attn_implementation)
    with torch.no_grad():
        packed = model(**inputs, use_cache=False).logits.reshape(4, LENGTH, -1)
        model.set_attn_implementation("eager")
        for row, starts in enumerate(STARTS):
            for begin, end in zip(starts, [*starts[1:], LENGTH], strict=True):
                alone = model(input_ids=batch.input_ids[row : row + 1, begin:end], use_cache=False).logits[0]
                assert (packed[row, begin:end] - alone).abs().max() < 1e-5
    assert packed.abs().max() > 1


@pytest.mark.parametrize("implementation", ["sdpa", "eager", pytest.param("flex_attention", marks=pytest.mark.slow)])
def test_logits_are_those_of_each_document_alone(implementation):
    model = new_model()
    model.set_attn_implementation(implementation)
    assert_as_if_alone(model)


def test_flash_attention_is_told_where_documents_begin(monkeypatch):
    """The package runs on GPUs only: in its place stands plain attention over the same arguments."""

    def attend(query, key, value, *, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, **_):
        assert torch.equal(cu_seqlens_q, cu_seqlens_k)
        lengths = [length for length in cu_seqlens_q.diff().tolist() if length]
        assert max_seqlen_q == LENGTH >= max(lengths) and len(cu_seqlens_q).bit_count() == 1  # few shapes to compile for
        parts = [[part.transpose(0, 1) for part in tensor.split(lengths)] for tensor in (query, key, value)]
        outputs = [functional.scaled_dot_product_attention(*part, is_causal=True) for part in zip(*parts, strict=True)]
        return torch.cat([output.transpose(0, 1) for output in outputs])

    def refuse(*_, **__):
        raise AssertionError("attention is not confined")

    def longest(**arguments):
        return {"max_seqlen_q": arguments["max_seqlen_q"]}

    functions = (refuse, attend, refuse, refuse, refuse), (longest, longest)
    monkeypatch.setattr(modeling_flash_attention_utils, "lazy_import_flash_attention", lambda *_, **__: functions)
    model = new_model()
    model.config._attn_implementation = "flash_attention_2"
    assert_as_if_alone(model)


def test_a_documents_first_token_has_no_loss_and_every_other_has():
    confined, plain = batch_of(PackedSource()), batch_of(PackedSource(document_attention=False))
    padding = 2
    assert plain.num_loss_tokens == 4 * (LENGTH - 1) - padding
    assert confined.num_loss_tokens == 4 * LENGTH - padding - sum(map(len, STARTS)) + 1
    (passes,) = confined.micro_batches(4 * LENGTH, "cpu")
    learned = {divmod(place + 1, LENGTH) for place in passes.positions.tolist()}
    assert not learned & {(row, start) for row, starts in enumerate(STARTS) for start in starts}
    assert not learned & {(3, 30), (3, 31)}
    assert len(learned) == len(passes.targets) == confined.num_loss_tokens
    assert passes.position_ids[0].tolist() == [0, 0, *range(12), *range(18)]
    (passes,) = plain.micro_batches(4 * LENGTH, "cpu")
    assert passes.position_ids is None
    assert (0, 14) in {divmod(place + 1, LENGTH) for place in passes.positions.tolist()}


def test_a_training_step_has_the_loss_of_the_documents_alone(run):
    source = PackedSource()
    _, out = run(source=source, recipe=optimization(token_budget=6 * LENGTH, warmup_steps=0), micro_batch_tokens=2 * LENGTH)
    model = build_model(SHAPE, VOCAB_SIZE, seed=1, bos_token_id=1, eos_token_id=2, pad_token_id=0)
    total, count = 0.0, 0
    for index in range(6):
        ids, labels, starts = (torch.from_numpy(part) for part in source.sequence(index))
        for document, wanted in zip(ids.tensor_split(starts[1:]), labels.tensor_split(starts[1:]), strict=True):
            if (num_loss := int((wanted[1:] != NO_LOSS).sum())) > 0:
                total += model(input_ids=document[None], labels=wanted[None]).loss.item() * num_loss
                count += num_loss
    line = read_log(out)[0]
    assert line.loss_tokens == count
    assert line.loss == pytest.approx(total / count, abs=1e-5)


def test_models_that_carry_a_state_or_take_no_positions_are_refused(run):
    sizes = {"vocab_size": VOCAB_SIZE, "hidden_size": 32}
    jamba = JambaForCausalLM(
        JambaConfig(
            **sizes,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            use_mamba_kernels=False,
            attn_layer_period=2,
            attn_layer_offset=1,
            num_experts=1,
        )
    )
    with pytest.raises(NotConfined, match=r"JambaForCausalLM.*depend on the document before"):
        check_confined(jamba)
    with pytest.raises(NotConfined, match=r"BloomForCausalLM.*takes no position ids"):
        run(model=BloomForCausalLM(BloomConfig(**sizes, n_layer=1, n_head=2, max_position_embeddings=LENGTH)), source=PackedSource())
    model = new_model()
    check_confined(model)
    assert all(weight.grad is None for weight in model.parameters())
