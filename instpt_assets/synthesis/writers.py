"""A pair set's writer, ready to be asked: the format that its recipe means, and the engine that runs it."""

import os
from collections.abc import Callable
from pathlib import Path

from instpt_assets.recipe.execution import Execution
from instpt_assets.recipe.synthesis import PairSet
from instpt_assets.recipe.writers import ModelFreeWriter, ServerWriter, SynthesizerWriter
from instpt_assets.synthesis.engine import VllmStart
from instpt_assets.synthesis.engine_process import EngineProcesses
from instpt_assets.synthesis.native import NativeFormat
from instpt_assets.synthesis.writing import Engine, Format, Sampling

MIN_PASSAGE_TOKENS = 16


def writer_format(pair_set: PairSet, model: Path | None) -> Format:
    """How the writer is asked.

    Args:
        pair_set: names the writer.
        model: the folder of its model, or of its tokenizer alone where a server runs it; None if a server does and there is none.

    Raises:
        ValueError: the tokenizer is not one of the writer's kind.
    """
    writer = pair_set.writer
    assert not isinstance(writer, ModelFreeWriter), "imported and rule-based pairs have no model"
    if isinstance(writer, SynthesizerWriter) or (isinstance(writer, ServerWriter) and writer.format == "native"):
        assert model is not None
        return NativeFormat(model)
    from instpt_assets.synthesis.chat import ChatFormat, ServerChatFormat

    if isinstance(writer, ServerWriter):
        return ServerChatFormat(writer, model)
    assert model is not None
    return ChatFormat(writer, model)


def passage_limit(pair_set: PairSet, writer_format: Format) -> int:
    """Longest passage in tokens: the recipe's, or what lets a chain fit the window.

    Raises:
        ValueError: what surrounds the passages leaves no room for them.
    """
    if pair_set.max_passage_tokens is not None:
        return pair_set.max_passage_tokens
    frame = writer_format.frame_tokens(pair_set.shots)
    limit = (pair_set.max_model_len - frame) // pair_set.shots - pair_set.max_new_tokens
    if limit < MIN_PASSAGE_TOKENS:
        raise ValueError(
            f"max_model_len {pair_set.max_model_len} leaves {max(limit, 0)} tokens for each of {pair_set.shots} passages beside {frame} tokens of "
            f"instructions and format and max_new_tokens {pair_set.max_new_tokens}: raise max_model_len, or lower shots or max_new_tokens"
        )
    return limit


def start_writer(
    pair_set: PairSet,
    model: Path | None,
    writer_format: Format,
    execution: Execution,
    on_start: Callable[[float], None] = lambda seconds: None,
    on_wait: Callable[[float], None] = lambda seconds: None,
) -> Engine:
    """Start the writer's engine: vLLM here, one process a replica, or the servers that the execution profile names.

    Args:
        pair_set: names the writer.
        model: see `writer_format`.
        writer_format: how the writer is asked.
        execution: where and how it runs.
        on_start: told how many seconds each start took, also those after an engine died.
        on_wait: told every few seconds for how long the first start has been waited for.

    Raises:
        UserError: it cannot be started, or the servers cannot be used; the message says why.
    """
    if isinstance(pair_set.writer, ServerWriter):
        from instpt_assets.synthesis.servers import start_servers

        return start_servers(pair_set, execution, writer_format)
    assert model is not None
    settings = execution.synthesis
    sampling = Sampling(pair_set.temperature, pair_set.seed, writer_format.stop_token_ids, writer_format.json_schema)
    threads = execution.num_threads or (len(os.sched_getaffinity(0)) if settings.num_replicas > 1 else None)
    start = VllmStart(model, pair_set, sampling, execution, threads and max(1, threads // settings.num_replicas))
    return EngineProcesses(
        [start] * settings.num_replicas,
        [_environment(execution, replica) for replica in range(settings.num_replicas)],
        watchdog_seconds=settings.watchdog_seconds,
        on_start=on_start,
        on_wait=on_wait,
    )


def _environment(execution: Execution, replica: int) -> dict[str, str]:
    """The GPUs of a replica: as many of the visible ones, in order, as share an engine."""
    settings = execution.synthesis
    if execution.device == "cpu" or settings.num_replicas == 1:
        return {}
    needed = settings.num_replicas * settings.tensor_parallel_size
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    devices = visible.split(",") if visible else [str(number) for number in range(needed)]
    if len(devices) < needed:
        raise ValueError(
            f"synthesis.num_replicas x synthesis.tensor_parallel_size of the execution profile need {needed} GPUs, "
            f"but CUDA_VISIBLE_DEVICES names {len(devices)}: lower one of them"
        )
    own = devices[replica * settings.tensor_parallel_size : (replica + 1) * settings.tensor_parallel_size]
    return {"CUDA_VISIBLE_DEVICES": ",".join(own)}
