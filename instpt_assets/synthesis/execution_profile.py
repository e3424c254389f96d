"""What decides how fast pairs are written on this machine, and a fingerprint of it: the key of measured throughputs."""

import hashlib
import os
import shutil
import subprocess
from typing import Any

from instpt_assets.recipe.execution import Execution
from instpt_assets.recipe.writers import ModelFreeWriter, ServerWriter, Writer
from instpt_assets.store.manifest import canonical_json

_BESIDE_SPEED = {"watchdog_seconds", "max_generated_tokens", "max_minutes", "servers", "server_requests"}
_SECONDS = 20.0


def execution_profile(execution: Execution, writer: Writer) -> dict[str, Any]:
    """What the speed of that writer depends on, beside the recipe, and its `fingerprint` (12 hexadecimal digits).

    For an engine: the device, the machine's accelerators (their names) or usable CPU cores, threads, and the synthesis settings that affect
    speed. For servers: their addresses, which enter the fingerprint alone, and the requests that each has at once.

    Args:
        execution: the execution profile.
        writer: what writes the pairs.
    """
    if isinstance(writer, ModelFreeWriter):
        return {"device": "none"}
    settings = execution.synthesis
    if isinstance(writer, ServerWriter):
        urls = sorted(settings.servers.get(writer.model, ()))
        shown: dict[str, Any] = {"device": "servers", "num_servers": len(urls), "server_requests": settings.server_requests}
        return shown | {"fingerprint": _fingerprint({**shown, "urls": urls})}
    shown = {"device": execution.device, "synthesis": settings.model_dump(mode="json", exclude=_BESIDE_SPEED)}
    if execution.device == "cuda":
        shown |= {"num_devices": num_devices(execution, writer), "accelerators": _accelerators()}
    else:
        shown |= {"num_cores": _usable_cores(), "num_threads": execution.num_threads or _usable_cores()}
    return shown | {"fingerprint": _fingerprint(shown)}


def num_devices(execution: Execution, writer: Writer) -> int | None:
    """Accelerators that generate: GPUs, or 1 for a CPU; None where servers generate, whose machines are not known here, and without a model."""
    if isinstance(writer, ServerWriter | ModelFreeWriter):
        return None
    return execution.synthesis.num_replicas * execution.synthesis.tensor_parallel_size if execution.device == "cuda" else 1


def _fingerprint(profile: object) -> str:
    return hashlib.sha256(canonical_json(profile).encode()).hexdigest()[:12]


def _usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _accelerators() -> list[str]:
    """Names of the machine's GPUs, each once; asked of the driver's own tool, so that this process stays free of CUDA."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    try:
        found = subprocess.run(
            [tool, "--query-gpu=name", "--format=csv,noheader"], capture_output=True, text=True, timeout=_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return []
    return sorted({name.strip() for name in found.stdout.splitlines() if name.strip()})
