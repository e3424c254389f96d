import math

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from instpt_assets.errors import UserError
from instpt_assets.training.batches import StepBatch
from instpt_assets.training.guards import Diverged
from instpt_assets.training.log import read_log
from instpt_assets.training.model import build_model
from instpt_assets.training.optimizer import build_optimizer
from instpt_assets_tests.training.tiny import LENGTH, SHAPE, VOCAB_SIZE, CountingSource, contents, optimization


def test_loss_falls_to_what_can_be_learned(run):
    statistics, out = run(recipe=optimization(token_budget=60 * 6 * LENGTH), source=CountingSource(360))
    assert statistics["first_loss"] == pytest.approx(math.log(VOCAB_SIZE), abs=0.3)
    assert statistics["final_loss"] < 1.0
    assert [line.step for line in read_log(out)] == list(range(1, 61))


def test_same_training_gives_the_same_bytes_in_bfloat16(run):
    recipe = optimization(dtype="bfloat16")
    _, first = run("first", recipe=recipe, checkpoint_steps=[3])
    _, second = run("second", recipe=recipe, checkpoint_steps=[3])
    assert contents(first) == contents(second)
    assert "checkpoint-3/model.safetensors" in contents(first)


def test_accumulation_changes_nothing_but_rounding(run):
    source = CountingSource(unlearned=9)
    logs = [read_log(run(str(size), micro_batch_tokens=size * LENGTH, source=source)[1]) for size in (2, 3, 6)]
    for lines in logs[1:]:
        assert [line.loss for line in lines] == pytest.approx([line.loss for line in logs[0]], abs=1e-5)
        assert [line.gradient_norm for line in lines] == pytest.approx([line.gradient_norm for line in logs[0]], rel=1e-4)


def test_first_step_is_adamw_on_the_mean_over_all_loss_tokens(run):
    source = CountingSource(unlearned=9)
    recipe = optimization(token_budget=6 * LENGTH, warmup_steps=0)
    _, out = run(source=source, recipe=recipe)
    trained = AutoModelForCausalLM.from_pretrained(out / "checkpoint")

    model = build_model(SHAPE, VOCAB_SIZE, seed=1, bos_token_id=1, eos_token_id=2, pad_token_id=0)
    sequences = [source.sequence(index) for index in range(6)]
    ids, labels = (torch.from_numpy(np.stack(part)) for part in zip(*(sequence[:2] for sequence in sequences), strict=True))
    model(input_ids=ids, labels=labels).loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm)
    torch.optim.AdamW(
        [
            {"params": [p for p in model.parameters() if p.ndim == 2], "weight_decay": 0.1},
            {"params": [p for p in model.parameters() if p.ndim == 1], "weight_decay": 0.0},
        ],
        lr=recipe.learning_rate,
        betas=(0.9, 0.95),
    ).step()
    assert read_log(out)[0].gradient_norm == pytest.approx(norm.item(), rel=1e-4)
    for name, weight in model.named_parameters():
        # Adam's first step is the learning rate times the gradient's sign: where the gradient is nearly 0, rounding decides.
        difference = (trained.get_parameter(name) - weight).abs()
        assert difference.mean() < 1e-4, name


def test_checkpoint_is_what_was_trained(run):
    statistics, out = run(recipe=optimization(dtype="bfloat16", token_budget=40 * 6 * LENGTH), source=CountingSource(240))
    model = AutoModelForCausalLM.from_pretrained(out / "checkpoint")
    assert model.dtype == torch.bfloat16 and model.config.vocab_size == VOCAB_SIZE
    assert model.lm_head.weight is model.model.embed_tokens.weight
    ids = torch.from_numpy(CountingSource().sequence(500)[0])[None]
    assert model(input_ids=ids, labels=ids).loss.item() < statistics["first_loss"] / 2


def test_only_matrices_decay():
    model = build_model(SHAPE, VOCAB_SIZE, seed=1, bos_token_id=1, eos_token_id=2, pad_token_id=0)
    decayed, kept = build_optimizer(model.parameters(), optimization()).param_groups
    assert (decayed["weight_decay"], kept["weight_decay"]) == (0.1, 0.0)
    assert {p.ndim for p in decayed["params"]} == {2} and {p.ndim for p in kept["params"]} == {1}


@pytest.mark.parametrize(
    ("source", "recipe", "message"),
    [
        (CountingSource(47), {}, r"need 48 sequences; the data has 47"),
        (CountingSource(), {"batch_tokens": 5 * LENGTH + 1}, r"no multiple of sequence_length 32"),
    ],
)
def test_budget_that_the_data_cannot_fill_stops_before_the_first_step(run, source, recipe, message):
    with pytest.raises(ValueError, match=message):
        run(source=source, recipe=optimization(**recipe))


def test_sequence_longer_than_the_window_stops(run):
    model = build_model(
        SHAPE.model_copy(update={"max_position_embeddings": LENGTH - 1}), VOCAB_SIZE, seed=1, bos_token_id=1, eos_token_id=2, pad_token_id=0
    )
    with pytest.raises(UserError, match=r"longer than the model's window of 31 tokens .*: shorten sequence_length"):
        run(model=model)


def test_tokens_of_another_tokenizer_stop(run):
    model = build_model(SHAPE, VOCAB_SIZE - 4, seed=1, bos_token_id=1, eos_token_id=2, pad_token_id=0)
    with pytest.raises(ValueError, match=r"vocabulary has 60: the data was tokenized with another tokenizer"):
        run(model=model)


def test_divergence_stops_with_the_step_and_the_last_good_checkpoint(run, tmp_path):
    with pytest.raises(Diverged, match=r"step 2: loss nan.*checkpoint-1"):
        run(recipe=optimization(learning_rate=1e38, warmup_steps=0), checkpoint_steps=[1])
    assert (tmp_path / "out/checkpoint-1/model.safetensors").exists()


def test_sequences_of_a_step_go_to_exactly_one_process():
    source = CountingSource()
    shares = [StepBatch(source, 10, 7, rank=rank, num_processes=3, vocab_size=VOCAB_SIZE) for rank in range(3)]
    passes = [list(share.micro_batches(2 * LENGTH, "cpu")) for share in shares]
    assert {len(batches) for batches in passes} == {2}
    assert sum(share.num_loss_tokens for share in shares) == 7 * (LENGTH - 1)
    rows = [row.tolist() for batches in passes for batch in batches for row in batch.input_ids if row.any()]
    assert sorted(rows) == sorted(source.sequence(index)[0].tolist() for index in range(10, 17))
