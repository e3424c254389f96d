"""Training state on disk, so that a killed training goes on where it was, with the same weights in the end.

A state is a sealed folder (`store.sealed`) of weights, optimizer and notes. torch.distributed.checkpoint writes the first two, so another
number of processes can read them; its metadata file is a pickle, and is read only because its SHA-256 is that of the seal. Random state is
none of it: a step's random numbers follow from its number (`train`).
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict
from torch.optim import Optimizer
from transformers import PreTrainedModel

from instpt_assets.store.sealed import SealedFolders, release, write_aside

_NOTES = "notes.json"
_TRAINED = StateDictOptions(ignore_frozen_params=True, strict=False)
"""Frozen weights are the base model's, and no part of a state; one that lacks anything else is refused when it is read."""


def state_name(step: int, suffix: str = "") -> str:
    """Name of the state after so many steps."""
    return f"step-{step:08d}{suffix}"


def save_state(
    folders: SealedFolders,
    name: str,
    model: PreTrainedModel,
    optimizer: Optimizer,
    notes: Mapping[str, Any],
    *,
    beside: Mapping[str, Path] | None = None,
    replace: bool = True,
) -> None:
    """Save a state. All processes call it.

    Args:
        folders: the same local folder for all processes.
        name: of the state.
        model: sharded.
        optimizer: of the model.
        notes: JSON to get back from `load_state`.
        beside: folders that are kept in it, by their names.
        replace: whether earlier states in the folder go.
    """
    first = dist.get_rank() == 0
    chosen = [write_aside(folders.folder) if first else None]
    dist.broadcast_object_list(chosen)
    (aside,) = chosen
    assert aside is not None
    weights, moments = get_state_dict(model, optimizer, options=_TRAINED)
    dcp.save({"model": weights, "optimizer": moments}, checkpoint_id=aside)
    if first:
        (aside / _NOTES).write_text(json.dumps(notes), encoding="utf-8")
        for kept, path in (beside or {}).items():
            release(path, aside / kept)
        folders.seal(aside, name, replacing="step-" if replace else None)
    dist.barrier()


def load_state(
    folders: SealedFolders,
    model: PreTrainedModel,
    optimizer: Optimizer,
    is_usable: Callable[[Path, Mapping[str, Any]], bool],
    is_wanted: Callable[[str], bool] = lambda _: True,
) -> tuple[Path, dict[str, Any]] | None:
    """Load the newest usable state into model and optimizer. All processes call it.

    Args:
        folders: the same local folder for all processes.
        model: sharded.
        optimizer: of the model.
        is_usable: told folder and notes of an intact state, by the first process alone.
        is_wanted: told a state's name, before its files are read or fetched.

    Returns:
        The state's folder and notes; None if there is no state.
    """
    found: list[Any] = [None]
    if dist.get_rank() == 0:
        for name in filter(is_wanted, reversed(folders.names("step-"))):
            path = folders.find(name)
            if path is None:
                continue
            notes = json.loads((path / _NOTES).read_text(encoding="utf-8"))
            if is_usable(path, notes):
                found = [(path, notes)]
                break
    dist.broadcast_object_list(found)
    if found[0] is None:
        return None
    path, notes = found[0]
    weights, moments = get_state_dict(model, optimizer, options=_TRAINED)
    dcp.load({"model": weights, "optimizer": moments}, checkpoint_id=path)
    set_state_dict(model, optimizer, model_state_dict=weights, optim_state_dict=moments, options=_TRAINED)
    return path, notes
