"""Training state on disk, so that a killed training goes on where it was, with the same weights in the end.

In the folder lie `step-<n>/` (weights, optimizer and log, by torch.distributed.checkpoint) and the checkpoints `checkpoint-<n>/` that
were due on the way. Each is written aside, sealed by a record of its files' SHA-256 and renamed; only what agrees with its record is
read, DCP's metadata, a pickle, included.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.optim import Optimizer
from transformers import PreTrainedModel

RECORD = "sha256.json"


def save_state(folder: Path, step: int, model: PreTrainedModel, optimizer: Optimizer, notes: dict[str, Any]) -> None:
    """Save the state after `step` steps, in place of the one before. All processes call it.

    Args:
        folder: the same local folder for all processes.
        notes: JSON to get back from `load_state`.
    """
    aside = folder / ".writing"
    first = dist.get_rank() == 0
    if first:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
    dist.barrier()
    weights, moments = get_state_dict(model, optimizer)
    dcp.save({"model": weights, "optimizer": moments}, checkpoint_id=aside)
    if first:
        (aside / "notes.json").write_text(json.dumps({"step": step, **notes}), encoding="utf-8")
        seal(aside, folder / f"step-{step:08d}")
        for older in _steps(folder)[:-1]:
            shutil.rmtree(older)
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


def seal(aside: Path, target: Path) -> None:
    """Write the record of the files in `aside` and rename it to `target`, replacing what lies there."""
    files = sorted(path for path in aside.rglob("*") if path.is_file())
    (aside / RECORD).write_text(json.dumps({path.relative_to(aside).as_posix(): _sha256(path) for path in files}), encoding="utf-8")
    shutil.rmtree(target, ignore_errors=True)
    os.replace(aside, target)


def is_intact(folder: Path) -> bool:
    """Whether the folder has a record and its files are those of the record."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return False
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} - {RECORD}
    return names == set(record) and all(_sha256(folder / name) == digest for name, digest in record.items())


def release(sealed: Path, target: Path) -> None:
    """Give a sealed folder's files a second place, without the record; as hard links where the file system can."""

    def link(source: str, destination: str) -> None:
        try:
            os.link(source, destination)
        except OSError:
            shutil.copyfile(source, destination)

    shutil.copytree(sealed, target, ignore=shutil.ignore_patterns(RECORD), copy_function=link)


def _steps(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*"))


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
