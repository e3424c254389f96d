"""vLLM's CPU build dies of an illegal instruction on some widths (hidden size 128): the demo's are ones that it runs."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from instpt_assets.recipe.loading import load_recipe
from instpt_assets.recipe.training import ModelShape
from instpt_assets.training.model import build_model, write_checkpoint

GENERATE = """
import sys
from vllm import LLM, SamplingParams

if __name__ == "__main__":
    for folder in sys.argv[1:]:
        llm = LLM(folder, max_model_len=64, enforce_eager=True, kv_cache_memory_bytes=2**28, skip_tokenizer_init=True)
        (output,) = llm.generate({"prompt_token_ids": [5, 6, 7]}, SamplingParams(max_tokens=4, ignore_eos=True, detokenize=False), use_tqdm=False)
        print("generated", len(output.outputs[0].token_ids))
        llm.llm_engine.engine_core.shutdown()
"""


@pytest.mark.slow
def test_models_of_the_demos_shapes_generate_in_vllm(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    demo = load_recipe("demo")
    assert demo.synthesizer is not None
    shapes = {"synthesizer": demo.synthesizer.model, "pretraining": demo.pretraining.model}
    for name, shape in shapes.items():
        assert isinstance(shape, ModelShape)
        model = build_model(shape, 4096, seed=0, bos_token_id=1, eos_token_id=2, pad_token_id=0)
        write_checkpoint(model, model.state_dict(), dtype=torch.bfloat16, tokenizer=None, folder=tmp_path / name)
    script = tmp_path / "generate.py"
    script.write_text(GENERATE, encoding="utf-8")
    result = subprocess.run(
        [sys.executable, str(script), *(str(tmp_path / name) for name in shapes)], capture_output=True, text=True, timeout=200, check=False
    )
    assert result.stdout.count("generated 4") == len(shapes), result.stderr[-2000:]
