"""What a token costs, and what accelerators can do: together the model FLOPs utilization (MFU) of Chowdhery et al. 2022 (PaLM), appendix B."""

import re

import torch
from transformers import PreTrainedModel

from instpt_assets.recipe.execution import Device

# Dense bfloat16, in TFLOP/s, as the vendors' data sheets give them without sparsity. The first whose words are in the device's name counts.
_PEAK_TFLOPS = (
    ("H100 NVL", 835),
    ("H100 PCIe", 756),
    ("H100", 989),
    ("H200 NVL", 835),
    ("H200", 989),
    ("H800", 989),
    ("H20", 148),
    ("GH200", 989),
    ("GB200", 2500),
    ("B200", 2250),
    ("A100", 312),
    ("A800", 312),
    ("A40", 150),
    ("A30", 165),
    ("A10G", 70),
    ("A10", 125),
    ("L40S", 362),
    ("L40", 181),
    ("L4", 121),
    ("RTX 6000 Ada", 364),
    ("RTX 4090", 165),
    ("RTX 3090", 71),
    ("MI300X", 1307),
)
# Of a part of a device, or a slower one of the same name, the peak is not known.
_OTHERS = re.compile(r"\b(MIG|Laptop|Max-Q|4090 D)\b")


def flops_per_token(model: PreTrainedModel, sequence_length: int) -> float:
    """Floating-point operations that a token of training needs: 6N + 12 L H Q T.

    N are the parameters that tokens are multiplied with, so the rows of the input embedding, which are only looked up, count where they
    are the output head too (PaLM's are). A frozen parameter costs 4 of the 6: it needs no gradient. L layers have H heads of size Q each;
    T is the sequence length. As in the source, attention counts in full, though half of it is masked, and what is computed twice to save
    memory counts once.

    Args:
        model: sharded or not.
        sequence_length: tokens a sequence.
    """
    config = model.config
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    looked_up = embedding.weight if head is None or head.weight is not embedding.weight else None
    multiplied = sum((6 if weight.requires_grad else 4) * weight.numel() for weight in model.parameters() if weight is not looked_up)
    head_size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return float(multiplied + 12 * config.num_hidden_layers * config.num_attention_heads * head_size * sequence_length)


def peak_flops(device: Device, given_tflops: float | None = None) -> float | None:
    """Peak of one process's device in FLOP/s, in bfloat16 unless it is given.

    Args:
        device: where models run.
        given_tflops: the peak in TFLOP/s, of a machine that the table does not know.

    Returns:
        None where it is not known, as on every CPU.
    """
    if given_tflops is not None:
        return given_tflops * 1e12
    if device == "cpu":
        return None
    name = torch.cuda.get_device_name()
    if _OTHERS.search(name):
        return None
    return next((tflops * 1e12 for words, tflops in _PEAK_TFLOPS if re.search(rf"\b{words}\b", name)), None)


def peak_tokens_per_second(
    model: PreTrainedModel,
    sequence_length: int,
    *,
    device: Device,
    dtype: torch.dtype,
    num_processes: int,
    given_tflops: float | None = None,
) -> float | None:
    """The rate at which all processes would work at the peak of their devices in that dtype; an observed rate divided by it is the MFU."""
    peak = peak_flops(device, given_tflops) if dtype == torch.bfloat16 or given_tflops is not None else None
    return None if peak is None else num_processes * peak / flops_per_token(model, sequence_length)
