"""Adapters on a base model: what is trained, what stays, and that the merged checkpoint is the adapted model."""

import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, PreTrainedModel

from instpt_assets.recipe.execution import TrainingExecution
from instpt_assets.recipe.lora import Lora
from instpt_assets.training.distributed import join_processes
from instpt_assets.training.guards import OutOfMemory, memory_explained
from instpt_assets.training.lora import AdapterError, add_adapters
from instpt_assets.training.model import build_model, load_model, write_checkpoint
from instpt_assets_tests.training.test_resume import Interrupted, InterruptedSource
from instpt_assets_tests.training.tiny import LENGTH, SHAPE, VOCAB_SIZE, CountingSource, contents, optimization

IDS = torch.from_numpy(CountingSource().sequence(500).ids)[None]


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A base model's folder."""
    model = build_model(SHAPE, VOCAB_SIZE, seed=5, bos_token_id=1, eos_token_id=2, pad_token_id=0)
    write_checkpoint(model, model.state_dict(), dtype=torch.float32, tokenizer=None, folder=tmp_path / "base")
    return tmp_path / "base"


def adapted(base: Path, dtype: torch.dtype = torch.float32, **lora: Any) -> PreTrainedModel:
    model = load_model(base, dtype)
    add_adapters(model, Lora(**{"rank": 4, "alpha": 16, **lora}), seed=3)
    return model


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(IDS).logits.float()


@pytest.mark.parametrize("trained", [(), ("embed_tokens",)])
def test_merged_checkpoint_is_the_base_model_with_its_adapter(run, base, trained):
    untouched = logits(load_model(base))
    torch.testing.assert_close(logits(adapted(base)), untouched)
    statistics, out = run(
        model=adapted(base, trained_modules=trained), source=CountingSource(240), recipe=optimization(token_budget=40 * 6 * LENGTH)
    )
    merged = logits(AutoModelForCausalLM.from_pretrained(out / "checkpoint"))
    assert (merged - untouched).abs().max() > 0.5
    # peft itself puts the adapter onto the base model.
    with_peft = logits(PeftModel.from_pretrained(load_model(base), out / "checkpoint/adapter"))
    torch.testing.assert_close(merged, with_peft, atol=1e-4, rtol=1e-4)
    assert statistics["final_loss"] < statistics["first_loss"] - 0.3


def test_weights_without_an_adapter_stay_as_they_are_and_are_not_counted_as_trained(run, base):
    statistics, out = run(model=adapted(base, target_modules=("q_proj", "v_proj")))
    before, after = (load_file(folder / "model.safetensors") for folder in (base, out / "checkpoint"))
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert {name.split(".")[-2] for name in changed} == {"q_proj", "v_proj"}
    adapters = 2 * 2 * 4 * (SHAPE.hidden_size + SHAPE.hidden_size)
    weights = sum(weight.numel() for weight in before.values())
    assert (statistics["num_trained_parameters"], statistics["num_parameters"]) == (adapters, weights)


def test_frozen_weights_are_held_in_the_arithmetic_of_the_recipe_and_adapters_in_float32(run, base):
    model = adapted(base, torch.bfloat16, trained_modules=("embed_tokens",))
    held = {weight.dtype for weight in model.parameters() if not weight.requires_grad}
    trained = {weight.dtype for weight in model.parameters() if weight.requires_grad}
    assert (held, trained) == ({torch.bfloat16}, {torch.float32})
    statistics, _ = run(model=model, recipe=optimization(dtype="bfloat16"))
    assert math.isfinite(statistics["final_loss"])


def test_interrupted_training_of_adapters_ends_in_the_same_bytes_dropout_included(run, base, tmp_path, monkeypatch):
    monkeypatch.setattr("instpt_assets.training.keeper._SAVING_SHARE", math.inf)
    _, whole = run("whole", model=adapted(base, dropout=0.3), checkpoint_steps=[3])
    _, without = run("without", model=adapted(base), checkpoint_steps=[3])
    saving = {"checkpoint_steps": [3], "state_folder": tmp_path / "state", "save_seconds": 0.0}
    with pytest.raises(Interrupted):
        run("cut", model=adapted(base, dropout=0.3), source=InterruptedSource(5), **saving)
    statistics, resumed = run("resumed", model=adapted(base, dropout=0.3), **saving)
    assert statistics["resumed_from_step"] == 5
    assert contents(resumed) == contents(whole) != contents(without)
    # A state holds what is trained; the base model's weights are the base model's.
    states = list((tmp_path / "state").glob("step-*/*.distcp"))
    assert states and sum(path.stat().st_size for path in states) < 3 * (base / "model.safetensors").stat().st_size


@pytest.mark.parametrize(
    ("lora", "message"),
    [
        (
            {"target_modules": ("query",)},
            r"lora.target_modules: the model has no linear layer 'query'; its linear layers are down_proj, .*v_proj",
        ),
        ({"target_modules": ("embed_tokens",)}, r"no linear layer 'embed_tokens'"),
        ({"trained_modules": ("wte",)}, r"lora.trained_modules: the model has no module 'wte'"),
        ({"trained_modules": ("q_proj",)}, r"'q_proj' gets adapters"),
        ({"trained_modules": ("lm_head",)}, r"'lm_head' is the model's embedding \(tied\)"),
    ],
)
def test_names_that_the_model_does_not_have_are_refused(base, lora, message):
    with pytest.raises(AdapterError, match=message):
        adapted(base, **lora)


@pytest.mark.parametrize(
    ("could_adapt", "advice"),
    [(True, r", or train adapters in place of all parameters \(lora in the recipe\)$"), (False, r"more GPUs \(now 1\)$")],
)
def test_a_full_gpu_is_told_of_with_what_takes_less(base, could_adapt, advice):
    join_processes("cpu")
    expected = rf"22,688 trained .* about 0.0 GiB .*micro_batch_tokens \(now 8192\), or set training.gradient_checkpointing, .*{advice}"
    with pytest.raises(OutOfMemory, match=expected), memory_explained(load_model(base), TrainingExecution(), could_adapt=could_adapt):
        raise torch.OutOfMemoryError("CUDA out of memory")


def test_a_missing_package_is_named(base, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(AdapterError, match="needs the package peft"):
        adapted(base)
