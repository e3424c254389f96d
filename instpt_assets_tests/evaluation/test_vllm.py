"""A checkpoint in vLLM as its users run it: `vllm serve` over HTTP, and lm-eval's own vLLM back end."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from instpt_assets.evaluation.harness import evaluate_checkpoint, prepare
from instpt_assets.recipe.evaluation import Evaluation

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ENVIRONMENT = {**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


def request(url: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(url, data, {"Content-Type": "application/json"}), timeout=60) as answer:
        return json.loads(answer.read())


def test_vllm_serve_completes_over_http(tiny_checkpoint: Path, tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # vLLM's CPU build ends with an illegal instruction on some small widths in bfloat16.
    options = ["--dtype", "float32", "--max-model-len", "64", "--enforce-eager", "--served-model-name", "tiny"]
    command = ["vllm", "serve", str(tiny_checkpoint), "--host", "127.0.0.1", "--port", str(port), *options]
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen(command, env=ENVIRONMENT, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 400
        while True:
            assert server.poll() is None and time.monotonic() < deadline, (tmp_path / "log").read_text()[-3000:]
            try:
                assert [model["id"] for model in request(f"http://127.0.0.1:{port}/v1/models")["data"]] == ["tiny"]
                break
            except OSError:
                time.sleep(1)
        body = {"model": "tiny", "prompt": "return the mask", "max_tokens": 5, "temperature": 0, "ignore_eos": True}
        completions = [request(f"http://127.0.0.1:{port}/v1/completions", body) for _ in range(2)]
    finally:
        server.terminate()
        server.wait(60)
    assert all(completion["usage"]["completion_tokens"] == 5 for completion in completions)
    first, second = ([choice["text"] for choice in completion["choices"]] for completion in completions)
    assert first == second and len(first) == 1


SCORE = """
import json
import sys
from lm_eval import simple_evaluate
from lm_eval.tasks import TaskManager

if __name__ == "__main__":
    checkpoint, folder, task = sys.argv[1:]
    results = simple_evaluate(
        model="vllm",
        model_args={"pretrained": checkpoint, "max_model_len": 128, "enforce_eager": True, "dtype": "float32", "add_bos_token": True},
        tasks=[task],
        task_manager=TaskManager(include_path=folder, include_defaults=False),
    )
    print("\\n" + json.dumps({"acc": results["results"][task]["acc,none"], "num_examples": len(results["samples"][task])}))
"""


def test_lm_evals_vllm_back_end_scores_a_checkpoint_as_transformers_does(tiny_checkpoint: Path, tmp_path: Path) -> None:
    held_out = "pydoc://numpy?include=numpy.ma.extras,numpy.ma.core,numpy.ma,numpy.polynomial.polynomial"
    tasks = prepare(Evaluation(held_out=held_out, num_examples=12), tmp_path)
    name = "documentation_summaries"
    (tmp_path / "score.py").write_text(SCORE)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "score.py"), str(tiny_checkpoint), str(tmp_path), name],
        env={**ENVIRONMENT, "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}, capture_output=True, text=True, timeout=500, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    (ours,) = [s.value for s in evaluate_checkpoint(tiny_checkpoint, tasks, batch_size=8).scores if (s.task, s.metric) == (name, "acc")]
    assert found["num_examples"] == 12
    assert found["acc"] == pytest.approx(ours, abs=1.5 / 12)  # rounding may turn a near tie
