"""Low-rank adapters on a base model: put in by peft before a training, merged into ordinary weights in every checkpoint.

The frozen weights are held in the arithmetic of the forward pass, which would round them to it in any case; what is trained is float32.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedModel

from instpt_assets.errors import UserError
from instpt_assets.recipe.lora import Lora

ADAPTER = "adapter"
"""The folder in a checkpoint that holds what was trained, in peft's own format."""

_NAME = "default"  # peft's name of a model's only adapter
_A, _B, _BASE = f"lora_A.{_NAME}.weight", f"lora_B.{_NAME}.weight", "base_layer."


class AdapterError(UserError):
    """A model cannot get the recipe's adapters; the message says why."""


def add_adapters(model: PreTrainedModel, lora: Lora, *, seed: int) -> None:
    """Freeze the model and put adapters beside its layers, in place; its outputs stay the same until they are trained.

    Args:
        model: in the arithmetic of the forward pass.
        lora: rank, layers and so on.
        seed: of the adapters' A; B begins at 0.

    Raises:
        AdapterError: peft is not installed, or the model has no module of a name.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise AdapterError(f"lora needs the package peft, which is not installed here ({error}): install it, or leave lora out") from error
    _check_names(model, lora)
    targets = "all-linear" if lora.target_modules == "all_linear" else list(lora.target_modules)
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]  # peft reckons with any number
        lora_dropout=lora.dropout,
        target_modules=targets,
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(config, model, adapter_name=_NAME)
    for name in lora.trained_modules:
        for module in _named(model, name):
            if any(hasattr(part, "lora_A") for part in module.modules()):
                raise AdapterError(f"lora.trained_modules: '{name}' gets adapters (target_modules): name it in one of the two")
            if model.config.tie_word_embeddings and module is model.get_output_embeddings():
                raise AdapterError(f"lora.trained_modules: the output head '{name}' is the model's embedding (tied): name the embedding")
            module.requires_grad_()
    # As peft must be told, so that it finds them when it loads the adapter.
    config.modules_to_save = list(lora.trained_modules) or None
    config.ensure_weight_tying = bool(model.config.tie_word_embeddings and lora.trained_modules)
    for weight in model.parameters():
        if weight.requires_grad:
            weight.data = weight.data.float()


def is_adapted(model: nn.Module) -> bool:
    """Whether adapters were added."""
    return hasattr(model, "peft_config")


def merged_weights(model: nn.Module, weights: Mapping[str, torch.Tensor], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Full weights under the base model's names: W + alpha / rank * B A, summed in float32, where there is an adapter.

    Args:
        model: with adapters, or without (then only the data type changes).
        weights: all of its weights by name.
        dtype: of what comes back.
    """
    scaling = {name: module.scaling[_NAME] for name, module in model.named_modules() if hasattr(module, "lora_A")}
    merged = {}
    for name, weight in weights.items():
        prefix, adapted, kind = name.partition(_BASE)
        if adapted and kind == "weight":
            product = weights[prefix + _B].float() @ weights[prefix + _A].float()
            weight = weight.float() + scaling[prefix.removesuffix(".")] * product
        if not name.endswith((_A, _B)):
            merged[prefix + kind] = weight.to(dtype)
    return merged


def write_adapter(model: nn.Module, weights: Mapping[str, torch.Tensor], folder: Path) -> None:
    """Write what was trained as peft does, for `PeftModel.from_pretrained(<base model>, folder)`.

    The configuration does not name the base model: where it lies is the machine's own affair, which model it is the manifest tells.

    Args:
        model: with adapters.
        weights: all of its weights by name.
        folder: where; created.
    """
    from safetensors.torch import save_file

    config = model.peft_config[_NAME]
    config.target_modules = sorted(config.target_modules)
    config.save_pretrained(folder)
    # peft wants a tied weight under each of its names.
    trained = {name for name, weight in model.named_parameters(remove_duplicate=False) if weight.requires_grad}
    kept = {f"base_model.model.{name.replace(f'.{_NAME}.', '.')}": weight.clone() for name, weight in weights.items() if name in trained}
    save_file(kept, folder / "adapter_model.safetensors")


def _check_names(model: nn.Module, lora: Lora) -> None:
    named = {"target_modules": () if lora.target_modules == "all_linear" else lora.target_modules, "trained_modules": lora.trained_modules}
    for field, names in named.items():
        for name in names:
            found = list(_named(model, name))
            if not found or (field == "target_modules" and not all(isinstance(module, nn.Linear) for module in found)):
                linear = sorted({path.rpartition(".")[2] for path, module in model.named_modules() if isinstance(module, nn.Linear)})
                what = "linear layer" if field == "target_modules" else "module"
                raise AdapterError(f"lora.{field}: the model has no {what} '{name}'; its linear layers are {', '.join(linear)}")


def _named(model: nn.Module, name: str) -> Iterator[nn.Module]:
    """The modules whose path is the name or ends with it."""
    return (module for path, module in model.named_modules() if f".{path}".endswith(f".{name}"))
