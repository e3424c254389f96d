"""Execution: how and where the recipe is computed. Nothing here decides what comes out; nothing here is hashed."""

from typing import Literal

from pydantic import Field

from instpt_assets.recipe.base import Part

Device = Literal["cpu", "cuda"]


class SynthesisExecution(Part):
    """How the vLLM engine runs."""

    max_num_seqs: int = Field(default=256, ge=1)
    """Sequences that the engine decodes at once."""
    kv_cache_gib: float = Field(default=1.0, gt=0)
    """Memory of the KV cache in GiB on the CPU; on a GPU `gpu_memory_utilization` decides."""
    gpu_memory_utilization: float = Field(default=0.9, gt=0, le=1)
    """Share of a GPU's memory that vLLM takes."""
    block_size: int | None = Field(default=None, ge=16)
    """Tokens a KV-cache block; the engine's default unless given (multiples of 32 on the CPU)."""
    tensor_parallel_size: int = Field(default=1, ge=1)
    """GPUs that share one engine."""
    enforce_eager: bool = False
    """Skip compilation: a faster start, slower decoding."""


class TrainingExecution(Part):
    """How the training loop runs."""

    num_processes: int = Field(default=1, ge=1)
    """Processes on this machine, through torchrun and FSDP2 where more than one."""
    micro_batch_tokens: int = Field(default=8192, ge=64)
    """Tokens of one forward and backward pass of a process; the rest of the batch is accumulated."""
    compile: bool = False
    """Whether torch.compile compiles the model: a slow start, faster steps."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass to save memory."""


class EvaluationExecution(Part):
    """How lm-eval runs."""

    batch_size: int = Field(default=64, ge=1)
    """Requests a forward pass."""


class Execution(Part):
    """An execution profile."""

    device: Device = "cpu"
    """Where models run."""
    num_threads: int | None = Field(default=None, ge=1)
    """CPU threads of a worker, over all its processes; by default all cores that this process may use."""
    synthesis: SynthesisExecution = SynthesisExecution()
    """How the vLLM engine runs."""
    training: TrainingExecution = TrainingExecution()
    """How the training loop runs."""
    evaluation: EvaluationExecution = EvaluationExecution()
    """How lm-eval runs."""
