"""Going on from a training with a smaller budget: which of its states are the first steps of this training.

Steps are alike where all that determines them is: the start of the model, the optimizer's settings, the learning rates and the data so far.
Of these the token budget is none, as long as the learning rate does not depend on it. So a training keeps its state when that ends (just
before the decay of `warmup_stable_decay`, at the end with `constant`), and a later one with a larger budget, or another decay, looks for
the newest state that holds its own first steps. A state's folder is named after its step and the digest of the data up to it, and lies in a
folder named after everything else.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from instpt_assets.mixture.index import MixtureIndex
from instpt_assets.recipe.training import Optimization
from instpt_assets.store.sealed import SealedFolders
from instpt_assets.training.state import state_name

_AT_ONCE = 1 << 20
"""Pieces of an index that are in memory at a time."""
_AFTER_THE_STABLE_STEPS = frozenset(
    {"token_budget", "schedule", "decay_fraction", "decay_shape", "final_learning_rate_fraction", "extended_from"}
)
"""Fields of the optimization that do not touch the steps whose learning rates do not depend on the budget."""


@dataclass(frozen=True)
class Lineage:
    """The trainings that begin as this one does."""

    folders: SealedFolders
    """Where their states lie."""
    optimization: Optimization
    """Of this training."""
    mixture: Path
    """Its data, an index."""
    source_digests: Mapping[tuple[str, str], str]
    """By asset and partition: the content of the tokenized rows that the index names."""

    @property
    def kept_step(self) -> int | None:
        """The step after which this training's state is kept; None: a larger budget changes its learning rates from the beginning."""
        return None if self.optimization.schedule == "cosine" else self.optimization.stable_steps

    def name(self, step: int) -> str:
        """Name of a state after so many of this training's steps, at most `kept_step`."""
        index = MixtureIndex(self.mixture)
        num_sequences = step * (self.optimization.batch_tokens // index.sequence_length)
        return state_name(step, f"-{_data_digest(index, num_sequences, self.source_digests)[:20]}")

    def holds(self, name: str) -> bool:
        """Whether the state of that name holds this training's first steps."""
        step = int(name.split("-")[1])
        return self.kept_step is not None and 0 < step <= self.kept_step and name == self.name(step)


def lineage_key(optimization: Optimization, made_of: Mapping[str, Any]) -> str:
    """What trainings have in common of which one may go on from another, the data aside: 20 hexadecimal digits.

    Args:
        optimization: its steps and optimizer.
        made_of: as JSON, what else determines a step: the model's start, the length of sequences, the seed, adapters.
    """
    settings = {name: value for name, value in optimization.model_dump(mode="json").items() if name not in _AFTER_THE_STABLE_STEPS}
    text = json.dumps({"optimization": settings, **made_of}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def _data_digest(index: MixtureIndex, num_sequences: int, source_digests: Mapping[tuple[str, str], str]) -> str:
    """A digest of an index's first sequences; the same in every index that begins with the same tokens."""
    bounds = index.bounds[: num_sequences + 1]
    state = hashlib.sha256(np.ascontiguousarray(bounds, dtype="<i8").tobytes())
    # An index numbers its sources as it likes: their content says what they are.
    contents, ranks = np.unique([source_digests[source] for source in index.sources], return_inverse=True)
    for begin in range(0, int(bounds[-1]), _AT_ONCE):
        pieces = np.array(index.pieces[begin : min(begin + _AT_ONCE, int(bounds[-1]))])
        used, pieces["source"] = np.unique(ranks[pieces["source"]], return_inverse=True)
        state.update("\n".join(contents[used].tolist()).encode())
        state.update(pieces.tobytes())
    return state.hexdigest()


def why_from_the_start(lineage: Lineage | None, optimization: Optimization, missing: Sequence[str]) -> str | None:
    """Why a training that could go on from an earlier budget begins at its first step; None if it names no earlier budget.

    Args:
        lineage: where it looked.
        optimization: its recipe.
        missing: names of checkpoints that a state would have needed and did not bring.
    """
    if not optimization.extended_from:
        return None
    if optimization.schedule == "cosine":
        return "schedule 'cosine' ends at the token budget: a larger one changes every step"
    if lineage is None:
        return "states of earlier budgets are kept of mixtures only"
    if missing:
        return f"a state of an earlier budget lacks {', '.join(missing)}, which checkpoint_steps name"
    return f"no state of an earlier budget {list(optimization.extended_from)} with the same model, data and settings lies in {lineage.folders.folder}"
