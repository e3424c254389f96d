"""The real engine: vLLM behind the scheduler's protocol, requests added while others run.

Only workers start it. On the CPU it runs in the calling process, so that it ends with it; tokens in, tokens out, no tokenizer in vLLM.
"""

import logging
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instpt_assets.recipe.execution import Execution
from instpt_assets.recipe.synthesis import PairSet
from instpt_assets.synthesis.scheduler import Generated

if TYPE_CHECKING:
    from vllm import LLM, SamplingParams

_QUIET = {
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
    "PYTHONWARNINGS": "ignore",
    "TORCH_CPP_LOG_LEVEL": "ERROR",
    "TOKENIZERS_PARALLELISM": "true",
}


class VllmEngine:
    """An engine started with `start_vllm`.

    Attributes:
        kv_tokens: tokens that its KV cache holds.
        max_num_seqs: sequences that it decodes at once.
    """

    def __init__(self, llm: "LLM", pair_set: PairSet, eos_id: int, max_num_seqs: int) -> None:
        self._llm = llm
        self._pair_set = pair_set
        self._eos_id = eos_id
        self._engine: Any = llm.llm_engine
        cache = self._engine.vllm_config.cache_config
        self.kv_tokens = int(cache.num_gpu_blocks * cache.block_size)
        self.max_num_seqs = max_num_seqs

    def add(self, request_id: str, token_ids: list[int], max_tokens: int, priority: int) -> None:
        """Queue a request.

        Raises:
            ValueError: vLLM refuses it, e.g. because it is longer than the window.
        """
        self._engine.add_request(request_id, {"prompt_token_ids": token_ids}, self._sampling(max_tokens), priority=priority)

    def step(self) -> list[Generated]:
        """Advance all requests by one step and return those that ended."""
        return [_generated(output) for output in self._engine.step() if output.finished]

    def close(self) -> None:
        """End the engine, its processes included."""
        self._engine.engine_core.shutdown()

    def _sampling(self, max_tokens: int) -> "SamplingParams":
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        # No seed of its own: vLLM's CPU sampler cannot take one. Draws come from the engine's generator, which the pair set's seed starts.
        return SamplingParams(
            temperature=self._pair_set.temperature,
            max_tokens=max_tokens,
            stop_token_ids=[self._eos_id],
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )


def start_vllm(checkpoint: Path, pair_set: PairSet, execution: Execution, eos_id: int) -> VllmEngine:
    """Start vLLM on a Hugging Face folder.

    Args:
        checkpoint: the synthesizer.
        pair_set: window, dtype and sampling.
        execution: device, memory and parallelism.
        eos_id: where a completion ends.

    Raises:
        ValueError: vLLM cannot hold the window in the memory that it was given.
    """
    settings = execution.synthesis
    on_cpu = execution.device == "cpu"
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    if on_cpu:
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    if execution.num_threads:
        os.environ["OMP_NUM_THREADS"] = str(execution.num_threads)
    warnings.filterwarnings("ignore", category=FutureWarning)
    logging.getLogger("vllm").setLevel(logging.ERROR)

    import torch
    from vllm import LLM

    if execution.num_threads:
        torch.set_num_threads(execution.num_threads)
    memory: dict[str, Any] = (
        {"kv_cache_memory_bytes": round(settings.kv_cache_gib * 2**30)}
        if on_cpu
        else {"gpu_memory_utilization": settings.gpu_memory_utilization}
    )
    if settings.block_size:
        memory["block_size"] = settings.block_size
    llm = LLM(
        model=str(checkpoint),
        skip_tokenizer_init=True,
        generation_config="vllm",
        dtype=pair_set.dtype,
        seed=pair_set.seed,
        max_model_len=pair_set.max_model_len,
        max_num_seqs=settings.max_num_seqs,
        tensor_parallel_size=settings.tensor_parallel_size,
        enforce_eager=settings.enforce_eager,
        enable_prefix_caching=True,
        scheduling_policy="priority",
        disable_log_stats=True,
        use_tqdm_on_load=False,
        **memory,
    )
    return VllmEngine(llm, pair_set, eos_id, settings.max_num_seqs)


def _generated(output: Any) -> Generated:
    completion = output.outputs[0]
    if completion.finish_reason not in ("stop", "length"):
        return Generated(output.request_id, error=f"the engine ended the request with '{completion.finish_reason}'")
    return Generated(output.request_id, tuple(completion.token_ids), output.num_cached_tokens or 0)
