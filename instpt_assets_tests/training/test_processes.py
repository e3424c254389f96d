"""Trainings as workers start them: in this process, and with two processes through torchrun."""

from pathlib import Path

import polars as pl
import pytest
import torch
from safetensors.torch import load_file
from torch.distributed.tensor import DTensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from instpt_assets.mixture.mix import build_mixture
from instpt_assets.mixture.row_index import folder_indices
from instpt_assets.mixture.tokenized import tokenize_raw
from instpt_assets.mixture.tokenizer import train_tokenizer
from instpt_assets.recipe.arms import Component
from instpt_assets.recipe.execution import Execution, TrainingExecution
from instpt_assets.training.distributed import join_processes, num_local_processes, shard
from instpt_assets.training.job import MixtureData, TrainingJob
from instpt_assets.training.launch import TrainingFailed, run
from instpt_assets.training.log import read_log
from instpt_assets.training.model import build_model
from instpt_assets.training.settings import ExecutionError
from instpt_assets_tests.training.tiny import LENGTH, SHAPE, VOCAB_SIZE, optimization

WORDS = "an array returns a copy of its elements along the axis and raises errors when shapes differ".split()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, MixtureData]:
    folder = tmp_path_factory.mktemp("data")
    texts = [" ".join(WORDS[(row * step) % len(WORDS)] for step in range(40)) for row in range(1, 120)]
    train_tokenizer(texts, 300, out=folder)
    tokenizer = folder / "tokenizer"
    table = folder / "data-00000.parquet"
    pl.DataFrame({"document_id": [f"d{row}" for row in range(len(texts))], "text": texts}).write_parquet(table)
    for name in ("tokens", "mixture"):
        (folder / name).mkdir()
    tokenize_raw([table], tokenizer=tokenizer, out=folder / "tokens")
    recipe = optimization()
    build_mixture(
        [Component(component="corpus")],
        folder_indices({("tokenized_raw", "s"): folder / "tokens"}),
        seed=0,
        token_budget=recipe.token_budget,
        batch_tokens=recipe.batch_tokens,
        sequence_length=LENGTH,
        held_out_documents=7,
        out=folder / "mixture",
    )
    return tokenizer, MixtureData(folder=folder / "mixture", sources=(("tokenized_raw", "s", folder / "tokens"),))


def job(data: tuple[Path, MixtureData], out: Path, num_processes: int, **changes: object) -> TrainingJob:
    tokenizer, mixture = data
    out.mkdir()
    fields = {
        "model": SHAPE,
        "seed": 1,
        "tokenizer": tokenizer,
        "data": mixture,
        "sequence_length": LENGTH,
        "held_out_every_steps": 3,
        "optimization": optimization(),
        "execution": Execution(
            num_threads=num_processes, training=TrainingExecution(num_processes=num_processes, micro_batch_tokens=2 * LENGTH)
        ),
        "out": out,
        "state_folder": None,
    }
    return TrainingJob(**{**fields, **changes})


def test_parameters_are_sharded_with_one_process_too():
    model = build_model(SHAPE, VOCAB_SIZE, seed=1, bos_token_id=1, eos_token_id=2, pad_token_id=0)
    module = shard(model, join_processes("cpu"), torch.bfloat16, TrainingExecution())
    assert all(isinstance(weight, DTensor) and weight.dtype == torch.float32 for weight in module.parameters())


def test_two_processes_train_as_one(data, tmp_path):
    messages = []
    one = run(job(data, tmp_path / "one", 1), lambda _: None)
    # Six sequences a step: three each.
    two = run(job(data, tmp_path / "two", 2, checkpoint_steps=(4,), state_folder=tmp_path / "state"), messages.append)
    assert (one["num_processes"], two["num_processes"]) == (1, 2)
    assert messages[-1]["step"] == 8
    logs = [read_log(tmp_path / name) for name in ("one", "two")]
    losses = [[line.loss for line in log] for log in logs]
    assert losses[1] == pytest.approx(losses[0], abs=1e-4)
    assert losses[0][-1] < losses[0][0] - 0.5
    held_out = [{line.step: line.held_out_loss for line in log if line.held_out_loss is not None} for log in logs]
    assert held_out[0].keys() == {3, 6, 8} and held_out[1] == pytest.approx(held_out[0], abs=1e-4)
    weights = [load_file(tmp_path / name / "checkpoint/model.safetensors") for name in ("one", "two")]
    assert max((weights[0][name] - weights[1][name]).abs().max().item() for name in weights[0]) < 1e-2
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "two/checkpoint-4").config.vocab_size == 300
    assert (tmp_path / "two/logs/training.png").stat().st_size < 100_000


def test_checkpoint_brings_its_tokenizer(data, tmp_path):
    statistics = run(job(data, tmp_path / "out", 1), lambda _: None)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out/checkpoint")
    assert tokenizer.decode(tokenizer("an array returns")["input_ids"], skip_special_tokens=True) == "an array returns"
    config = AutoModelForCausalLM.from_pretrained(tmp_path / "out/checkpoint").generation_config
    assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == (
        tokenizer.bos_token_id,
        tokenizer.eos_token_id,
        tokenizer.pad_token_id,
    )
    assert statistics["vocab_size"] == 300


def test_error_of_a_process_reaches_the_caller(data, tmp_path):
    with pytest.raises(TrainingFailed, match=r"^9 steps of 6 sequences need 54 sequences; the data has 48"):
        run(job(data, tmp_path / "out", 2, optimization=optimization(token_budget=9 * 6 * LENGTH)), lambda _: None)


def test_a_training_takes_all_gpus_of_its_node_unless_it_is_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    assert num_local_processes(Execution(device="cuda")) == 8
    assert num_local_processes(Execution(device="cuda", training=TrainingExecution(num_processes=2))) == 2
    assert num_local_processes(Execution(device="cpu")) == 1
    for gpus, wanted in ((8, 9), (0, None)):
        monkeypatch.setattr(torch.cuda, "device_count", lambda gpus=gpus: gpus)
        with pytest.raises(ExecutionError, match=f"this node has {gpus}"):
            num_local_processes(Execution(device="cuda", training=TrainingExecution(num_processes=wanted)))
