"""What of a training is kept: checkpoints that are due, and states from which a killed training, or one with a larger budget, goes on."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.optim import Optimizer
from transformers import PreTrainedModel

from instpt_assets.recipe.training import Optimization
from instpt_assets.store.sealed import SealedFolders, release, write_aside
from instpt_assets.training.lineage import Lineage, why_from_the_start
from instpt_assets.training.log import LogLine, write_log
from instpt_assets.training.model import write_checkpoint
from instpt_assets.training.state import load_state, save_state, state_name

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
    states: SealedFolders | None
    """Where states lie; None: nowhere."""
    lineage: Lineage | None
    """Where states for larger budgets lie; None: nowhere."""
    save_seconds: float
    """Least time between two states."""
    optimization: Optimization
    """The recipe."""
    fingerprint: str
    """Of the training: states with another are left alone."""
    resumed_from_step: int = 0
    """The step after which this process began."""
    extended_from_step: int = 0
    """The last step that a training with another budget did."""
    _missing: list[str] = field(default_factory=list)
    """Checkpoints that a state of another budget lacks."""

    def resume(self) -> list[LogLine]:
        """Load the newest state, if there is one, into model and optimizer; the lines of the steps that it has done."""
        self._saved, self._saved_step, self._save_every = time.monotonic(), 0, self.save_seconds
        notes = self._own_state() or self._ancestors_state()
        if notes is None:
            return []
        lines = [LogLine(**line) for line in notes["log"]]
        self._saved_step = len(lines)
        self.resumed_from_step, self.extended_from_step = len(lines), notes["extended_from_step"]
        return lines

    def _own_state(self) -> dict[str, Any] | None:
        if self.states is None:
            return None
        found = load_state(self.states, self.model, self.optimizer, self._is_own)
        return None if found is None else found[1]

    def _ancestors_state(self) -> dict[str, Any] | None:
        """That of a training with another budget; what its checkpoints were is this training's too."""
        if self.lineage is None or self.lineage.kept_step is None:
            return None
        found = load_state(self.lineage.folders, self.model, self.optimizer, self._is_ancestor, self.lineage.holds)
        if found is None:
            return None
        path, notes = found
        if dist.get_rank() == 0:
            for name in self._due(len(notes["log"])):
                self._put(name, partial(release, path / name))
        dist.barrier()
        own = notes["fingerprint"] == self.fingerprint  # kept before a kill
        return notes if own else {**notes, "extended_from_step": len(notes["log"])}

    def _is_own(self, _: Path, notes: Mapping[str, Any]) -> bool:
        assert self.states is not None
        due = self._due(len(notes["log"]))
        return notes["fingerprint"] == self.fingerprint and all(self.states.find(name) is not None for name in due)

    def _is_ancestor(self, path: Path, notes: Mapping[str, Any]) -> bool:
        self._missing = [due for due in self._due(len(notes["log"])) if not (path / due).is_dir()]
        return not self._missing

    def _due(self, step: int) -> list[str]:
        """Names of the checkpoints that were due in the first so many steps."""
        return [f"checkpoint-{kept}" for kept in self.checkpoint_steps if kept <= step]

    def is_due(self) -> bool:
        """Whether the time has come, by the first process's clock, to save a state."""
        return dist.get_rank() == 0 and time.monotonic() - self._saved >= self._save_every

    def after_step(self, lines: Sequence[LogLine], *, save: bool) -> None:
        """Keep what is due after the last of these steps: a checkpoint, a state for larger budgets, and, where `save` says so, a state."""
        step = lines[-1].step
        if step in self.checkpoint_steps:
            self._keep_checkpoint(f"checkpoint-{step}")
        notes = {"fingerprint": self.fingerprint, "extended_from_step": self.extended_from_step, "log": [asdict(line) for line in lines]}
        if self.lineage is not None and step == self.lineage.kept_step:
            beside = {name: self._place / name for name in self._due(step)}
            save_state(self.lineage.folders, self.lineage.name(step), self.model, self.optimizer, notes, beside=beside, replace=False)
        if save and self.states is not None:
            begun = time.monotonic()
            save_state(self.states, state_name(step), self.model, self.optimizer, notes)
            self._saved, self._saved_step = time.monotonic(), step
            self._save_every = max(self.save_seconds, (self._saved - begun) / _SAVING_SHARE)

    def finish(self, lines: Sequence[LogLine]) -> None:
        """Put the last checkpoint, those before it and the log where they belong."""
        weights = self._weights()
        if dist.get_rank() == 0:
            self._write(weights, self.out / "checkpoint")
            if self.states is not None:
                for name in self._due(lines[-1].step):
                    release(self.states.folder / name, self.out / name)
            write_log(lines, self.out)
        dist.barrier()

    def statistics(self) -> dict[str, Any]:
        """Statistics: resumed_from_step, extended_from_step (0: none); not_extended: why, where the recipe names earlier budgets."""
        why = self._why_not_extended()
        steps = {"resumed_from_step": self.resumed_from_step, "extended_from_step": self.extended_from_step}
        return steps if why is None else {**steps, "not_extended": why}

    def beginning(self) -> str:
        """Where this process begins, in words."""
        num_steps = f"{self.optimization.num_steps:,}"
        if self.resumed_from_step:
            whose = ", which a training with another budget did" if self.resumed_from_step == self.extended_from_step else ""
            return f"goes on after step {self.resumed_from_step:,} of {num_steps}{whose}"
        why = self._why_not_extended()
        return f"begins with step 1 of {num_steps}" + (f": {why}" if why else "")

    def _why_not_extended(self) -> str | None:
        return None if self.extended_from_step else why_from_the_start(self.lineage, self.optimization, self._missing)

    def close(self) -> None:
        """Wait until what was saved is where a rerun on another machine would look for it."""
        if dist.get_rank() == 0:
            for folders in (self.states, None if self.lineage is None else self.lineage.folders):
                if folders is not None:
                    folders.close()

    def last_good(self, step: int) -> str:
        """What was kept before a step, in words."""
        kept = self._due(step - 1)
        words = f"the last good checkpoint is {kept[-1]} (in {self._place})" if kept else "no checkpoint was due before it"
        return words + (f", a state was saved after step {self._saved_step} (in {self._place})" if self._saved_step else "")

    @property
    def _place(self) -> Path:
        """Where checkpoints lie until the training ends."""
        return self.out if self.states is None else self.states.folder

    def _keep_checkpoint(self, name: str) -> None:
        weights = self._weights()
        if dist.get_rank() == 0:
            self._put(name, lambda folder: self._write(weights, folder))
        dist.barrier()

    def _put(self, name: str, fill: Callable[[Path], None]) -> None:
        """Fill a checkpoint's folder; sealed where a resumed training must be able to trust it."""
        if self.states is None:
            fill(self.out / name)
            return
        aside = write_aside(self.states.folder)
        fill(aside)
        self.states.seal(aside, name)

    def _weights(self) -> dict[str, torch.Tensor]:
        """All weights, gathered on the first process."""
        return get_model_state_dict(self.model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))

    def _write(self, weights: Mapping[str, torch.Tensor], folder: Path) -> None:
        write_checkpoint(self.model, weights, dtype=self.dtype, tokenizer=self.tokenizer, folder=folder)
