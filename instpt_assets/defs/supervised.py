"""Workers as processes under the supervisor, and what their end means."""

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import IO

ENVIRONMENT = {
    # Large tensors are mapped on their own, so that their memory goes back: their sizes vary, and a heap of their remains grows without end.
    # Huge pages make mapping cheap; without them it costs 8 % of a training on a CPU.
    "GLIBC_TUNABLES": ":".join(
        f"glibc.malloc.{name}={value}"
        for name, value in {"hugetlb": 1, "mmap_threshold": 5_000_000, "trim_threshold": 1_000_000_000, "top_pad": 64 << 20}.items()
    ),
    # oneDNN keeps what it compiled for the last 1024 shapes, some MB each; the shapes that come again are few.
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "64",
    # Threads that spin while they wait take the cores from those that work: four times slower beside another process.
    "OMP_WAIT_POLICY": "PASSIVE",
    # Progress goes through Pipes.
    "TQDM_DISABLE": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "TOKENIZERS_PARALLELISM": "true",
    # An engine's process ends without taking its libraries apart; the kernel has their semaphores back all the same.
    "PYTHONWARNINGS": "ignore:resource_tracker",
}
"""Of every worker, unless the environment says otherwise."""
END_SECONDS = 5.0
"""How long a cancelled worker may take to end, before it is killed."""
_KILL_SECONDS = 15.0
"""How much longer its supervisor may take."""


@contextmanager
def supervised(
    stage: str, *arguments: str, environment: Mapping[str, str], stdout: int | IO[bytes] | None = None, end_seconds: float = END_SECONDS
) -> Iterator[subprocess.Popen[bytes]]:
    """`python -m instpt_assets.workers.<stage>` under a supervisor; when the block ends, however it does, nothing below it goes on.

    Args:
        stage: names the worker.
        arguments: of its command line.
        environment: variables beside those of this process.
        stdout: as for `subprocess.Popen`.
        end_seconds: how long the worker may take to end.
    """
    python = [sys.executable, "-m"]
    process = subprocess.Popen(
        [*python, "instpt_assets.workers.supervisor", str(end_seconds), *python, f"instpt_assets.workers.{stage}", *arguments],
        # The supervisor ends everything when this pipe closes, however this process ends.
        stdin=subprocess.PIPE,
        stdout=stdout,
        env={**ENVIRONMENT, **os.environ, **environment},
        start_new_session=True,
    )
    try:
        yield process
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(end_seconds + _KILL_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def read_chunks(descriptor: int) -> Iterator[bytes]:
    """What can be read there, as it comes, to its end.

    Ctrl-C ends the wait: a plain read would go on, since polars has the kernel restart what SIGINT breaks off.
    """
    while True:
        select.select([descriptor], [], [])
        chunk = os.read(descriptor, 1 << 16)
        if not chunk:
            return
        yield chunk


def ended_by(status: int) -> str:
    """What a worker's exit status says of its end: negative if a signal ended its supervisor, above 128 if one ended the worker itself."""
    number = -status if status < 0 else status - 128
    if number not in set(signal.Signals):
        return f"it ended with status {status}"
    name = signal.Signals(number).name
    hint = {
        signal.SIGKILL: ": did the machine run out of memory? (`dmesg` says so; smaller batches need less)",
        signal.SIGILL: ": this processor lacks an instruction that a library was built with, or that was chosen for the model's shape",
    }.get(signal.Signals(number), "")
    return f"{'its supervisor' if status < 0 else 'it'} was ended by {name}{hint}"
