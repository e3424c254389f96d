"""Base models of several architectures, tiny and random, are continued from and written as their own class reads them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    BloomForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from instpt_assets.training.log import read_log
from instpt_assets.training.model import build_model, load_model
from instpt_assets.training.settings import ExecutionError
from instpt_assets_tests.training.tiny import LENGTH, SHAPE, VOCAB_SIZE, CountingSource, optimization

PADDED = VOCAB_SIZE + 16  # rows beyond the tokenizer's, as many models have them
SMALL = {"vocab_size": PADDED, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
MODELS: dict[str, Callable[[], PreTrainedModel]] = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SMALL, num_key_value_heads=2)),
    "llama, tied, with biases": lambda: LlamaForCausalLM(
        LlamaConfig(**SMALL, tie_word_embeddings=True, attention_bias=True, mlp_bias=True, attention_dropout=0.2)
    ),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**SMALL, num_key_value_heads=2)),
    "gpt2, with dropout": lambda: GPT2LMHeadModel(GPT2Config(vocab_size=PADDED, n_embd=32, n_layer=2, n_head=4, n_positions=64)),
    "gpt-neox, with dropout": lambda: GPTNeoXForCausalLM(GPTNeoXConfig(**SMALL, attention_dropout=0.1, hidden_dropout=0.1)),
    "bloom, without a window": lambda: BloomForCausalLM(BloomConfig(vocab_size=PADDED, hidden_size=32, n_layer=2, n_head=4)),
    "mixtral": lambda: MixtralForCausalLM(MixtralConfig(**SMALL, num_key_value_heads=2, num_local_experts=4)),
}  # fmt: skip


def save(name: str, folder: Path) -> Path:
    torch.manual_seed(0)
    MODELS[name]().save_pretrained(folder)
    return folder


def own_loss(folder: Path, step: int) -> float:
    """The loss that a saved model computes itself on a step's sequences."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ids = torch.stack([torch.from_numpy(CountingSource().sequence(index).ids) for index in range(step * 6, step * 6 + 6)])
    with torch.no_grad():
        return model(input_ids=ids, labels=ids).loss.item()


@pytest.mark.parametrize("name", MODELS)
def test_a_base_model_of_any_architecture_is_trained_and_written_as_it_was(run: Any, tmp_path: Path, name: str) -> None:
    base = tmp_path / "base"
    torch.manual_seed(0)
    MODELS[name]().save_pretrained(base)
    recipe = optimization(token_budget=3 * 6 * LENGTH, warmup_steps=0)
    logs = {}
    for rows in (6, 2):
        _, out = run(str(rows), model=load_model(base), recipe=recipe, micro_batch_tokens=rows * LENGTH, checkpoint_steps=[2])
        logs[rows] = [line.loss for line in read_log(out)]
    assert logs[6] == pytest.approx(logs[2], abs=1e-5)  # dropout would make it another one
    assert logs[6][2] < logs[6][0] - 0.2
    assert [logs[6][0], logs[6][2]] == pytest.approx([own_loss(base, 0), own_loss(out / "checkpoint-2", 2)], abs=1e-5)
    before, after = (AutoModelForCausalLM.from_pretrained(folder) for folder in (base, out / "checkpoint"))
    assert type(after) is type(before)
    assert (after.get_output_embeddings().weight is after.get_input_embeddings().weight) == before.config.tie_word_embeddings


def test_a_model_that_changes_its_logits_is_refused(run: Any, tmp_path: Path) -> None:
    config = Gemma2Config(**SMALL, num_key_value_heads=2, head_dim=8)
    Gemma2ForCausalLM(config).save_pretrained(tmp_path / "gemma")
    with pytest.raises(ExecutionError, match="Gemma2ForCausalLM changes its logits \\(final_logit_softcapping\\)"):
        run("out", model=load_model(tmp_path / "gemma"), recipe=optimization())


def test_processes_behind_the_first_hold_no_weights_before_they_get_their_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    MODELS["llama"]().save_pretrained(tmp_path / "base")
    (tmp_path / "base/model.safetensors").rename(tmp_path / "not-on-this-node")
    monkeypatch.setenv("RANK", "1")
    built = build_model(SHAPE, VOCAB_SIZE, seed=1, bos_token_id=1, eos_token_id=2, pad_token_id=0)
    for model in (load_model(tmp_path / "base"), load_model(tmp_path / "base", torch.bfloat16), built):
        assert all(tensor.is_meta for tensor in (*model.parameters(), *model.buffers()))
