"""What of a training is kept: checkpoints that are due, and states from which a killed training goes on."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.optim import Optimizer
from transformers import PreTrainedModel

from instpt_assets.training.log import LogLine, write_log
from instpt_assets.training.model import write_checkpoint
from instpt_assets.training.state import load_state, release, save_state, seal, write_aside

_SAVING_SHARE = 0.05  # at most so much of the time goes into saving state


@dataclass
class Keeper:
    """Keeps one training's checkpoints and states. All processes call its methods, at the same steps; the first writes.

    Checkpoints wait, sealed, beside the states until the training ends; without a state folder they go to their place at once.
    """

    model: PreTrainedModel
    """Sharded."""
    optimizer: Optimizer
    dtype: torch.dtype
    """Of the checkpoints' weights."""
    tokenizer: Path | None
    """A tokenizer folder whose files go into the checkpoints."""
    out: Path
    """Where checkpoints and log go in the end."""
    checkpoint_steps: Sequence[int]
    """Steps after which a checkpoint is kept."""
    state_folder: Path | None
    """Where states lie; None: nowhere."""
    save_seconds: float
    """Least time between two states."""
    fingerprint: str
    """Of the training: states with another are left alone."""

    def resume(self) -> list[LogLine]:
        """Load the newest state, if there is one, into model and optimizer; the lines of the steps that it has done."""
        self._saved, self._save_every = time.monotonic(), self.save_seconds
        if self.state_folder is None:
            return []
        notes = load_state(
            self.state_folder, self.model, self.optimizer, fingerprint=self.fingerprint, checkpoint_steps=self.checkpoint_steps
        )
        return [LogLine(**line) for line in notes["log"]] if notes else []

    def is_due(self) -> bool:
        """Whether the time has come, by the first process's clock, to save a state."""
        return dist.get_rank() == 0 and time.monotonic() - self._saved >= self._save_every

    def after_step(self, lines: Sequence[LogLine], *, save: bool) -> None:
        """Keep what is due after the last of these steps: a checkpoint, and, where `save` says so, a state."""
        step = lines[-1].step
        if step in self.checkpoint_steps:
            self._keep_checkpoint(f"checkpoint-{step}", self.state_folder or self.out, sealed=self.state_folder is not None)
        if save and self.state_folder is not None:
            begun = time.monotonic()
            notes = {"fingerprint": self.fingerprint, "log": [asdict(line) for line in lines]}
            save_state(self.state_folder, step, self.model, self.optimizer, notes)
            self._saved = time.monotonic()
            self._save_every = max(self.save_seconds, (self._saved - begun) / _SAVING_SHARE)

    def finish(self, lines: Sequence[LogLine]) -> None:
        """Put the last checkpoint, those before it and the log where they belong."""
        self._keep_checkpoint("checkpoint", self.out, sealed=False)
        if dist.get_rank() == 0:
            if self.state_folder is not None:
                for kept in self.checkpoint_steps:
                    release(self.state_folder / f"checkpoint-{kept}", self.out / f"checkpoint-{kept}")
            write_log(lines, self.out)

    def last_good(self, step: int) -> str:
        """What was kept before a step, in words."""
        kept = [kept for kept in self.checkpoint_steps if kept < step]
        if not kept:
            return "no checkpoint was due before it"
        return f"the last good checkpoint is checkpoint-{kept[-1]} (in {self.state_folder or self.out})"

    def _keep_checkpoint(self, name: str, folder: Path, *, sealed: bool) -> None:
        """Gather the weights and write them on rank 0, sealed where a resumed training must be able to trust them."""
        weights = get_model_state_dict(self.model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
        if dist.get_rank() == 0:
            target = write_aside(folder) if sealed else folder / name
            write_checkpoint(self.model, weights, dtype=self.dtype, tokenizer=self.tokenizer, folder=target)
            if sealed:
                seal(target, folder / name)
        dist.barrier()
