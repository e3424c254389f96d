"""Training state on disk, so that a killed training goes on where it was, with the same weights in the end.

In the folder lie `step-<n>/` (weights, optimizer and log, by torch.distributed.checkpoint) and the checkpoints `checkpoint-<n>/` that
were due on the way. Each is written aside, in a folder of its writer's own, sealed by a record of its files' SHA-256 and renamed; only
what agrees with its record is read, DCP's metadata, a pickle, included. So two runs of one training do not disturb each other.
"""

import errno
import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.optim import Optimizer
from transformers import PreTrainedModel

RECORD = "sha256.json"
_ASIDE = ".writing-"
_STALE_SECONDS = 6 * 3600.0
"""What was written aside and not touched for so long has lost its writer."""


def save_state(folder: Path, step: int, model: PreTrainedModel, optimizer: Optimizer, notes: dict[str, Any]) -> None:
    """Save the state after `step` steps, in place of earlier ones. All processes call it.

    Args:
        folder: the same local folder for all processes.
        notes: JSON to get back from `load_state`.
    """
    first = dist.get_rank() == 0
    chosen = [write_aside(folder) if first else None]
    dist.broadcast_object_list(chosen)
    (aside,) = chosen
    assert aside is not None
    weights, moments = get_state_dict(model, optimizer)
    dcp.save({"model": weights, "optimizer": moments}, checkpoint_id=aside)
    if first:
        (aside / "notes.json").write_text(json.dumps({"step": step, **notes}), encoding="utf-8")
        sealed = folder / f"step-{step:08d}"
        seal(aside, sealed)
        for older in (path for path in _steps(folder) if path < sealed):
            shutil.rmtree(older, ignore_errors=True)  # another run may be removing it too
    dist.barrier()


def load_state(
    folder: Path, model: PreTrainedModel, optimizer: Optimizer, *, fingerprint: str, checkpoint_steps: Sequence[int] = ()
) -> dict[str, Any] | None:
    """Load the newest intact state into model and optimizer; its notes, or None if there is none. All processes call it.

    Args:
        fingerprint: of the training; a state whose notes name another is left alone.
        checkpoint_steps: checkpoints that must lie beside a state that is past them.
    """
    found: list[Any] = [None, None]
    if dist.get_rank() == 0:
        for path in reversed(_steps(folder)):
            if not is_intact(path):
                continue
            notes = json.loads((path / "notes.json").read_text(encoding="utf-8"))
            due = [folder / f"checkpoint-{step}" for step in checkpoint_steps if step <= notes["step"]]
            if notes["fingerprint"] == fingerprint and all(is_intact(checkpoint) for checkpoint in due):
                found = [path, notes]
                break
    dist.broadcast_object_list(found)
    path, notes = found
    if path is None:
        return None
    weights, moments = get_state_dict(model, optimizer)
    dcp.load({"model": weights, "optimizer": moments}, checkpoint_id=path)
    set_state_dict(model, optimizer, model_state_dict=weights, optim_state_dict=moments)
    return dict(notes)


def write_aside(folder: Path) -> Path:
    """A new folder in `folder`, this writer's own; what killed writers left there is removed."""
    for left in folder.glob(f"{_ASIDE}*"):
        if time.time() - _last_written(left) > _STALE_SECONDS:
            shutil.rmtree(left, ignore_errors=True)
    aside = folder / f"{_ASIDE}{uuid.uuid4().hex}"
    aside.mkdir(parents=True)
    return aside


def seal(aside: Path, target: Path) -> None:
    """Write the record of the files in `aside` and rename it to `target`, replacing what lies there."""
    files = sorted(path for path in aside.rglob("*") if path.is_file())
    (aside / RECORD).write_text(json.dumps({path.relative_to(aside).as_posix(): _sha256(path) for path in files}), encoding="utf-8")
    while True:
        try:
            os.replace(aside, target)
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        before = aside.with_name(f"{_ASIDE}{uuid.uuid4().hex}")
        with suppress(FileNotFoundError):  # another run took it away first
            os.replace(target, before)
        shutil.rmtree(before, ignore_errors=True)


def is_intact(folder: Path) -> bool:
    """Whether the folder has a record and its files are those of the record; not while another run removes it."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} - {RECORD}
        return names == set(record) and all(_sha256(folder / name) == digest for name, digest in record.items())
    except (FileNotFoundError, ValueError):
        return False


def release(sealed: Path, target: Path) -> None:
    """Give a sealed folder's files a second place, without the record; as hard links where the file system can."""

    def link(source: str, destination: str) -> None:
        try:
            os.link(source, destination)
        except OSError:
            shutil.copyfile(source, destination)

    shutil.copytree(sealed, target, ignore=shutil.ignore_patterns(RECORD), copy_function=link)


def _last_written(folder: Path) -> float:
    """When something in the folder was last written, in seconds since the epoch; 0 if it is gone."""
    times = [0.0]
    for place, _, names in os.walk(folder):
        for name in (".", *names):
            with suppress(FileNotFoundError):
                times.append(os.stat(os.path.join(place, name)).st_mtime)
    return max(times)


def _steps(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*"))


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
