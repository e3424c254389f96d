"""What the training workers share: where unfinished work lies, and that a committed artifact needs it no more."""

import os
import shutil
from pathlib import Path

from instpt_assets.store.making import Inputs
from instpt_assets.store.manifest import Spec
from instpt_assets.store.store import Store, cache_folder
from instpt_assets.workers.runtime import Make, run_worker


def run_training_worker(make: Make) -> None:
    """`run_worker`, with threads that sleep while they wait and without the state of what is committed."""
    # OpenMP reads this when torch is loaded. Spinning threads make a step several times slower where others use the cores too.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    run_worker(make, committed=lambda store, spec: shutil.rmtree(_progress_folder(store, spec), ignore_errors=True))


def state_folder(spec: Spec, inputs: Inputs) -> Path:
    """Where a training keeps its state: in the store, or (S3) in this machine's cache."""
    return _progress_folder(next(iter(inputs.values())).store, spec)


def seed_number(spec: Spec) -> int:
    """The number of the spec's seed, `seed-<number>`."""
    return int(str(spec.recipe["seed"]).removeprefix("seed-"))


def _progress_folder(store: Store, spec: Spec) -> Path:
    parts = ("_progress", spec.asset, spec.partition, spec.identity)
    return Path(store.path(*parts)) if store.is_local else cache_folder().joinpath(*parts)
