"""What the training workers share: where unfinished work lies, and that a committed artifact needs it no more.

With a store on S3 unfinished work lies in this machine's cache, and is copied to the store for reruns on other machines.
"""

import os
import shutil
from contextlib import suppress
from pathlib import Path

from instpt_assets.store.making import Inputs
from instpt_assets.store.manifest import Spec
from instpt_assets.store.store import CACHE, Store, cache_folder
from instpt_assets.store.sweeping import TRAINING
from instpt_assets.workers.runtime import Make, run_worker


def run_training_worker(make: Make) -> None:
    """`run_worker`, with threads that sleep while they wait and without the state of what is committed."""
    # OpenMP reads this when torch is loaded. Spinning threads make a step several times slower where others use the cores too.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    run_worker(make, committed=_remove_unfinished)


def state_folder(spec: Spec, inputs: Inputs) -> Path:
    """Where a training keeps its state: in the store, or (S3) in this machine's cache."""
    return _local(_store(inputs), "_progress", spec.asset, spec.partition, spec.identity)


def state_url(spec: Spec, inputs: Inputs) -> str | None:
    """Where the state is copied to from `state_folder`; None if that lies in the store already."""
    return _url(_store(inputs), "_progress", spec.asset, spec.partition, spec.identity)


def ancestors_places(inputs: Inputs) -> tuple[Path, str | None]:
    """Likewise folder and URL of the states that trainings with a larger budget go on from."""
    store = _store(inputs)
    return _local(store, CACHE, TRAINING), _url(store, CACHE, TRAINING)


def seed_number(spec: Spec) -> int:
    """The number of the spec's seed, `seed-<number>`."""
    return int(str(spec.recipe["seed"]).removeprefix("seed-"))


def _remove_unfinished(store: Store, spec: Spec) -> None:
    parts = ("_progress", spec.asset, spec.partition, spec.identity)
    shutil.rmtree(_local(store, *parts), ignore_errors=True)
    if not store.is_local:
        with suppress(FileNotFoundError):
            store.fs.rm(store.path(*parts), recursive=True)


def _store(inputs: Inputs) -> Store:
    return next(iter(inputs.values())).store


def _local(store: Store, *parts: str) -> Path:
    return Path(store.path(*parts)) if store.is_local else cache_folder().joinpath(*parts)


def _url(store: Store, *parts: str) -> str | None:
    return None if store.is_local else "/".join((store.url, *parts))
