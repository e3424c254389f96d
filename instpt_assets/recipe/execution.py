"""Execution: how and where the recipe is computed. Nothing here decides what comes out; nothing here is hashed."""

from typing import Literal, Self

from pydantic import Field, model_validator

from instpt_assets.recipe.base import Part

Device = Literal["cpu", "cuda"]


class SynthesisExecution(Part):
    """How the vLLM engine runs, or where servers run it."""

    num_replicas: int = Field(default=1, ge=1)
    """Engines beside each other, each a process with GPUs of its own (`tensor_parallel_size` of them)."""
    tensor_parallel_size: int = Field(default=1, ge=1)
    """GPUs that share one engine."""
    max_num_seqs: int = Field(default=256, ge=1)
    """Sequences that an engine decodes at once."""
    max_num_batched_tokens: int | None = Field(default=None, ge=64)
    """Tokens that an engine computes in one step at most; vLLM's default unless given."""
    kv_cache_gib: float = Field(default=1.0, gt=0)
    """Memory of an engine's KV cache in GiB on the CPU; on a GPU `gpu_memory_utilization` decides."""
    gpu_memory_utilization: float = Field(default=0.9, gt=0, le=1)
    """Share of a GPU's memory that vLLM takes."""
    block_size: int | None = Field(default=None, ge=16)
    """Tokens a KV-cache block (multiples of 32 on the CPU); by default 32 on the CPU and vLLM's own on GPUs."""
    prefix_caching: bool = True
    """Keep what was computed of a prompt for requests that begin alike: a chain's later shots live on it."""
    ngram_speculation: int | None = Field(default=None, ge=1, le=32)
    """Tokens that the engine guesses ahead by looking the last ones up in the prompt (responses quote their passage); none by default."""
    enforce_eager: bool = False
    """Skip compilation: a faster start, slower decoding."""
    multiprocess_engine: bool | None = None
    """vLLM's engine core in processes of its own; by default on GPUs, where it overlaps with the work around it."""
    watchdog_seconds: float = Field(default=300.0, gt=0)
    """An engine that gives no sign of life for so long is ended and started again."""
    servers: dict[str, tuple[str, ...]] = {}
    """By the name of a model: base URLs (`http://host:8000/v1`) of the OpenAI-compatible servers that serve it, for pair sets with `writer.kind: server`. A key, if they want one, is read from the variable INSTPT_SERVER_API_KEY."""
    server_requests: int = Field(default=64, ge=1)
    """Requests to each server at once."""
    max_generated_tokens: int | None = Field(default=None, ge=1)
    """A run stops cleanly when it has generated about so many tokens; the next one goes on from there."""
    max_minutes: float | None = Field(default=None, gt=0)
    """A run stops cleanly after about so many minutes of generation (the engine's start does not count); the next one goes on from there."""


class TrainingExecution(Part):
    """How the training loop runs."""

    num_processes: int | None = Field(default=None, ge=1)
    """Processes on each node, through torchrun and FSDP2 where there is more than one in all; by default one a GPU that the node's worker sees (CUDA_VISIBLE_DEVICES), and one on the CPU."""
    num_nodes: int = Field(default=1, ge=1)
    """Machines that train together: the run's own, and others on each of which `python -m instpt_assets.training.join <rendezvous>` runs, with the same installation. They need the same files at the same paths: the store, or the cache of one on S3 (INSTPT_CACHE), on a file system that all share."""
    rendezvous: str | None = Field(default=None, pattern=r"^[^:/\s]+:[0-9]{1,5}$")
    """`host:port` of the run's own machine, as the other nodes reach it. Whoever reaches it can take part: keep it on a network of your own. Where a machine has several networks, NCCL_SOCKET_IFNAME and GLOO_SOCKET_IFNAME name the interface on each node."""
    rendezvous_minutes: float = Field(default=10.0, gt=0)
    """How long a training waits for its nodes."""
    save_seconds: float = Field(default=60.0, ge=0)
    """Least time between two saved states, from which a killed training goes on; more where saving would take over 5 % of the time."""
    end_seconds: float = Field(default=60.0, gt=0)
    """How long a training that is cancelled may take to end its step and save its state, before it is killed."""
    micro_batch_tokens: int = Field(default=8192, ge=64)
    """Tokens of one forward and backward pass of a process; the rest of the batch is accumulated."""
    attention: Literal["sdpa", "eager", "flex_attention", "flash_attention_2"] = "sdpa"
    """How attention is computed: torch's fused kernels, plain matrix products, torch's flexible kernels (GPUs only; with attention confined to documents they skip what is masked), or the package flash-attn (GPUs only)."""
    compile: bool = False
    """Whether torch.compile compiles the layers: a slow start, faster steps. Needs a C++ compiler on the CPU."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass to save memory: about a third more computation."""
    liger: bool = False
    """Whether norms, feed-forwards, rotary embeddings and the loss run in the kernels of the package liger-kernel (GPUs only)."""
    loss_chunk_tokens: int | None = Field(default=None, ge=1)
    """Tokens whose logits stand in memory at once; by default as many as take 512 MiB (on the CPU 8), but at least 512."""
    reshard_after_forward: bool | None = None
    """Whether a layer's gathered weights are freed between its forward and backward pass: 2 bytes a parameter less memory in bfloat16, more traffic. By default where there are several processes."""
    peak_tflops: float | None = Field(default=None, gt=0)
    """What one device computes at most, in TFLOP/s of the recipe's dtype without sparsity, for the share of it that a training reaches (MFU); known by itself for common GPUs."""

    @model_validator(mode="after")
    def _rendezvous(self) -> Self:
        if self.num_nodes > 1 and self.rendezvous is None:
            raise ValueError(f"num_nodes {self.num_nodes} needs rendezvous, host:port of the run's own machine")
        return self


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
    cost_per_hour: float | None = Field(default=None, ge=0)
    """What an hour of this machine costs, in whatever currency: plans and pilots then tell what a run would cost."""
    synthesis: SynthesisExecution = SynthesisExecution()
    """How the vLLM engine runs."""
    training: TrainingExecution = TrainingExecution()
    """How the training loop runs."""
    evaluation: EvaluationExecution = EvaluationExecution()
    """How lm-eval runs."""
