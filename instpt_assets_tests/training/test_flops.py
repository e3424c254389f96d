"""Operations of a token, against counts by hand."""

from typing import Any

import pytest
import torch

from instpt_assets.recipe.training import ModelShape
from instpt_assets.training.flops import flops_per_token, peak_flops, peak_tokens_per_second
from instpt_assets.training.model import build_model

D, LAYERS, FEED_FORWARD, VOCAB, T = 32, 3, 64, 100, 16
# Two key-value heads of four: k and v are half as wide.
LAYER = 2 * D * D + 2 * D * D // 2 + 3 * D * FEED_FORWARD + 2 * D
ATTENTION = 12 * LAYERS * D * T


def model(tied):
    shape = ModelShape(
        hidden_size=D, num_layers=LAYERS, num_heads=4, num_kv_heads=2, intermediate_size=FEED_FORWARD, tie_word_embeddings=tied
    )
    return build_model(shape, VOCAB, seed=0, bos_token_id=None, eos_token_id=None, pad_token_id=None)


@pytest.mark.parametrize("tied", [True, False])
def test_rows_of_the_embedding_count_once_as_the_output_head(tied):
    assert flops_per_token(model(tied), T) == 6 * (LAYERS * LAYER + D + VOCAB * D) + ATTENTION


def test_frozen_weights_need_no_gradient():
    frozen = model(tied=False)
    for weight in frozen.parameters():
        weight.requires_grad_(False)
    frozen.lm_head.weight.requires_grad_()
    assert flops_per_token(frozen, T) == 4 * (LAYERS * LAYER + D) + 6 * VOCAB * D + ATTENTION


def test_a_peak_is_known_by_the_devices_name_or_given(monkeypatch):
    two: dict[str, Any] = {"num_processes": 2, "dtype": torch.float32}
    assert peak_flops("cpu") is None and peak_tokens_per_second(model(True), T, device="cpu", **two) is None
    rate = peak_tokens_per_second(model(True), T, device="cpu", given_tflops=0.5, **two)
    assert rate == pytest.approx(2 * 0.5e12 / flops_per_token(model(True), T))
    monkeypatch.setattr("torch.cuda.get_device_name", lambda: "NVIDIA H200")
    assert peak_tokens_per_second(model(True), T, device="cuda", **two) is None, "the table's are peaks in bfloat16"
    assert peak_tokens_per_second(model(True), T, device="cuda", **{**two, "dtype": torch.bfloat16}) is not None
    names = {"NVIDIA H200": 989, "NVIDIA H100 80GB HBM3": 989, "NVIDIA A100-SXM4-80GB": 312, "NVIDIA L40S": 362, "NVIDIA H100 PCIe": 756}
    for name, tflops in {**names, "NVIDIA A10": 125, "NVIDIA B200": 2250, "NVIDIA GH200 480GB": 989, "NVIDIA L4": 121}.items():
        monkeypatch.setattr("torch.cuda.get_device_name", lambda name=name: name)
        assert peak_flops("cuda") == tflops * 1e12, name
    # What only begins like a known one, or is a slice of it, has another peak.
    for name in (
        "NVIDIA T1",
        "NVIDIA RTX A4000",
        "NVIDIA RTX A1000",
        "NVIDIA A100-SXM4-40GB MIG 1g.5gb",
        "NVIDIA GeForce RTX 4090 Laptop GPU",
    ):
        monkeypatch.setattr("torch.cuda.get_device_name", lambda name=name: name)
        assert peak_flops("cuda") is None, name
