"""Models to train: a Mistral from a shape, or a checkpoint to continue from; and how a trained one is written.

Of several processes the first alone holds a model's weights (8 billion are 32 GB); the others hold its shell (device meta) until `shard`
gives each its share.
"""

import math
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, MistralConfig, MistralForCausalLM, PreTrainedModel

from instpt_assets.recipe.training import ModelShape
from instpt_assets.training.lora import ADAPTER, is_adapted, merged_weights, write_adapter

INITIAL_STD = 0.02
_TOKENIZER_FILES = ("tokenizer", "special_tokens", "added_tokens", "vocab", "merges", "chat_template")


def build_model(
    shape: ModelShape, vocab_size: int, *, seed: int, bos_token_id: int | None, eos_token_id: int | None, pad_token_id: int | None
) -> MistralForCausalLM:
    """A Mistral with random float32 weights.

    Matrices are drawn from N(0, 0.02); those that write to the residual stream are scaled by 1 / sqrt(2 * num_layers), as in GPT-2.

    Args:
        shape: width, depth and so on.
        vocab_size: rows of the embedding.
        seed: of the weights; the same on every machine.
    """
    config = mistral_config(shape, vocab_size, bos_token_id=bos_token_id, eos_token_id=eos_token_id, pad_token_id=pad_token_id)
    if not is_first_process():
        with torch.device("meta"):
            return MistralForCausalLM(config)
    model = MistralForCausalLM(config)
    generator = torch.Generator().manual_seed(seed)
    residual_std = INITIAL_STD / math.sqrt(2 * shape.num_layers)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 1:
                weight.fill_(1.0)
            else:
                writes_to_residual = name.endswith(("o_proj.weight", "down_proj.weight"))
                weight.normal_(0.0, residual_std if writes_to_residual else INITIAL_STD, generator=generator)
    return model


def mistral_config(
    shape: ModelShape, vocab_size: int, *, bos_token_id: int | None, eos_token_id: int | None, pad_token_id: int | None
) -> MistralConfig:
    """What transformers calls a shape."""
    return MistralConfig(
        vocab_size=vocab_size,
        hidden_size=shape.hidden_size,
        num_hidden_layers=shape.num_layers,
        num_attention_heads=shape.num_heads,
        num_key_value_heads=shape.num_kv_heads or shape.num_heads,
        intermediate_size=shape.intermediate_size,
        max_position_embeddings=shape.max_position_embeddings,
        rope_parameters={"rope_type": "default", "rope_theta": shape.rope_theta},
        tie_word_embeddings=shape.tie_word_embeddings,
        sliding_window=None,
        bos_token_id=bos_token_id,
        eos_token_id=eos_token_id,
        pad_token_id=pad_token_id,
        dtype=torch.float32,
    )


def build_for_tokenizer(shape: ModelShape, tokenizer: Path, *, seed: int) -> MistralForCausalLM:
    """`build_model` with the vocabulary and special tokens of a tokenizer folder."""
    loaded = AutoTokenizer.from_pretrained(tokenizer, trust_remote_code=False)
    return build_model(
        shape,
        len(loaded),
        seed=seed,
        bos_token_id=loaded.bos_token_id,
        eos_token_id=loaded.eos_token_id,
        pad_token_id=loaded.pad_token_id,
    )


def load_model(name_or_path: str | Path, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """A causal language model (folder or hub name) with weights of that type; only safetensors are read, no code of the model's is run.

    Its dropout is turned off: the same recipe gives the same losses however a batch is divided.
    """
    config = AutoConfig.from_pretrained(name_or_path, trust_remote_code=False)
    for name, value in vars(config).items():
        if "drop" in name and isinstance(value, float):
            setattr(config, name, 0.0)
    if not is_first_process():
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config, dtype=dtype)
    return AutoModelForCausalLM.from_pretrained(name_or_path, config=config, dtype=dtype, trust_remote_code=False, use_safetensors=True)


def is_first_process() -> bool:
    """Whether this process is the only one of its training or torchrun's first."""
    return int(os.environ.get("RANK", "0")) == 0


def write_checkpoint(
    model: PreTrainedModel, weights: Mapping[str, torch.Tensor], *, dtype: torch.dtype, tokenizer: Path | None, folder: Path
) -> None:
    """Write a Hugging Face folder: weights (safetensors), configuration, generation settings and tokenizer.

    Adapters are merged into the weights, and lie beside them in `adapter/` too.

    Args:
        model: gives class, configuration and generation settings; its own weights may be sharded and are not read.
        weights: the full weights by name, on the CPU.
        dtype: what they are stored as.
        tokenizer: a tokenizer folder whose files are copied in.
        folder: where; created.
    """
    with torch.device("meta"):
        shell = type(model)(model.config)
    shell.load_state_dict(merged_weights(model, weights, dtype), assign=True)
    shell.tie_weights()
    if model.generation_config is not None:
        shell.generation_config = model.generation_config
    shell.save_pretrained(folder)
    if is_adapted(model):
        write_adapter(model, weights, folder / ADAPTER)
    for path in sorted(tokenizer.iterdir()) if tokenizer else ():
        if path.is_file() and path.name.startswith(_TOKENIZER_FILES):
            shutil.copyfile(path, folder / path.name)


def describe(model: PreTrainedModel) -> dict[str, Any]:
    """Statistics of a model: num_parameters (without adapters, which are merged into them in the end), num_trained_parameters, vocab_size."""
    weights = list(model.parameters())
    return {
        "num_parameters": sum(weight.numel() for name, weight in model.named_parameters() if ".lora_" not in name),
        "num_trained_parameters": sum(weight.numel() for weight in weights if weight.requires_grad),
        "vocab_size": model.config.vocab_size,
    }
