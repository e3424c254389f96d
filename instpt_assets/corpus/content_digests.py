"""SHA-256 of local files, computed once as long as a file stays as it is: large ones are remembered beyond this process."""

import hashlib
import json
import os
import time
import uuid
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from instpt_assets.store.store import cache_folder

_LARGE = 1 << 20
"""Bytes from which a note is read faster than the file."""
_SETTLED_NS = 2_000_000_000
"""What was written to this recently may be written to again without a new modification time."""

State = tuple[int, int, int, int]


def content_digest(path: str) -> str:
    """64 hexadecimal digits over a local file's bytes; read again only if size, times or inode have changed.

    Raises:
        OSError: it cannot be read.
    """
    path = os.path.abspath(path)
    return _digest(path, _state(path))


def _state(path: str) -> State:
    status = os.stat(path)
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


@lru_cache(maxsize=100_000)
def _digest(path: str, state: State) -> str:
    if state[0] < _LARGE:
        return _read(path)
    note = cache_folder() / "digests" / f"{hashlib.sha256(os.fsencode(path)).hexdigest()}.json"
    with suppress(OSError, ValueError, TypeError):  # what cannot be read, or is no note, is none
        known_state, known = json.loads(note.read_text(encoding="utf-8"))
        if known_state == list(state):
            return str(known)
    digest = _read(path)
    if _state(path) == state and time.time_ns() - max(state[1:3]) > _SETTLED_NS:
        with suppress(OSError):  # without a place for notes, the next process reads the file again
            note.parent.mkdir(parents=True, exist_ok=True)
            temporary = note.with_name(f".{note.name}.{uuid.uuid4().hex}")
            temporary.write_text(json.dumps([state, digest]), encoding="utf-8")
            os.replace(temporary, note)
    return digest


def _read(path: str) -> str:
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
