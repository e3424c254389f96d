"""The loss on held-out sequences: what it is, when it is computed, and that it changes nothing."""

import pytest
import torch

from instpt_assets.recipe.execution import TrainingExecution
from instpt_assets.recipe.training import Pretraining
from instpt_assets.training.distributed import join_processes, shard
from instpt_assets.training.held_out import default_every_steps, held_out_loss
from instpt_assets.training.log import read_log
from instpt_assets.training.model import build_model
from instpt_assets_tests.training.tiny import LENGTH, SHAPE, VOCAB_SIZE, CountingSource, contents, optimization


def tiny_model(dropout: float = 0.0):
    model = build_model(SHAPE, VOCAB_SIZE, seed=1, bos_token_id=1, eos_token_id=2, pad_token_id=0)
    model.config.attention_dropout = dropout
    for layer in model.model.layers:
        layer.self_attn.attention_dropout = dropout
    return model


def test_it_is_the_mean_over_all_tokens_with_loss_without_dropout():
    source = CountingSource(7, unlearned=9)
    sums, tokens, model = 0.0, 0, tiny_model().eval()
    for index in range(7):
        ids, labels = (torch.from_numpy(part)[None] for part in source.sequence(index)[:2])
        count = int((labels[:, 1:] != -100).sum())
        sums, tokens = sums + model(input_ids=ids, labels=labels).loss.item() * count, tokens + count
    module = shard(tiny_model(dropout=0.5), join_processes("cpu"), torch.float32, TrainingExecution())
    for size in (LENGTH, 3 * LENGTH, 100 * LENGTH):
        found = held_out_loss(module, source, micro_batch_tokens=size, vocab_size=VOCAB_SIZE, device="cpu")
        assert found == pytest.approx(sums / tokens, abs=1e-5)
    assert module.training and all(weight.grad is None for weight in module.parameters())


def test_it_falls_and_changes_nothing_else(run):
    recipe = optimization(token_budget=10 * 6 * LENGTH)
    _, without = run("without", model=tiny_model(dropout=0.3), recipe=recipe)
    statistics, out = run("with", model=tiny_model(dropout=0.3), recipe=recipe, held_out=CountingSource(5), held_out_every_steps=4)
    lines = read_log(out)
    followed = {line.step: line.held_out_loss for line in lines if line.held_out_loss is not None}
    assert list(followed) == [4, 8, 10] and followed[10] < followed[4]
    assert statistics["final_held_out_loss"] == followed[10]
    same = ("step", "loss", "learning_rate", "gradient_norm")
    assert [[getattr(line, name) for name in same] for line in lines] == [
        [getattr(line, name) for name in same] for line in read_log(without)
    ]
    weights = [contents(folder)["checkpoint/model.safetensors"] for folder in (without, out)]
    assert weights[0] == weights[1]
    assert "held_out_loss" not in (without / "training_log.jsonl").read_text()


@pytest.mark.parametrize(
    ("num_steps", "held_out_tokens", "every"),
    [
        (1000, 0, 50),
        (7, 100, 1),
        # 100,000 tokens at a third of the cost: 1,000 tokens a step may wait 667 steps for them.
        (1000, 100_000, 667),
    ],
)
def test_by_default_it_takes_little_of_the_time(num_steps, held_out_tokens, every):
    assert default_every_steps(num_steps, 1000, held_out_tokens) == every


def test_how_often_is_said_only_where_documents_are_held_out():
    fields = {"model": SHAPE, "optimization": optimization()}
    with pytest.raises(ValueError, match="held_out_documents is 0"):
        Pretraining(**fields, held_out_every_steps=5)
    assert Pretraining(**fields, held_out_documents=9, held_out_every_steps=5).hashed()["held_out_every_steps"] == 5
    assert not {"held_out_documents", "held_out_every_steps"} & set(Pretraining(**fields).hashed())
