"""Runs a module as if nothing were installed but torch, transformers, numpy, safetensors, pydantic and what they need: `room_alone.py MODULE …`.

Before that it imports all of the training room's modules, and prints their names.
"""

import importlib
import importlib.metadata
import pkgutil
import re
import runpy
import sys
from collections.abc import Iterable, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

LIBRARIES = ("torch", "transformers", "numpy", "safetensors", "pydantic")


def needed(distributions: Iterable[str]) -> set[str]:
    """Names of the distributions and of all that they need."""
    found: set[str] = set()
    waiting = list(distributions)
    while waiting:
        name = _normal(waiting.pop())
        if name not in found:
            found.add(name)
            try:
                requirements = importlib.metadata.requires(name) or []
            except importlib.metadata.PackageNotFoundError:
                continue  # of another platform
            waiting += [re.split(r"[^\w.-]", line, maxsplit=1)[0] for line in requirements if "extra ==" not in line]
    return found


class Room(PathFinder):
    """Finds nothing that belongs to other distributions."""

    hidden: frozenset[str] = frozenset()

    @classmethod
    def find_spec(cls, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """As the ordinary finder, which also looks into what is hidden."""
        return None if fullname.partition(".")[0] in cls.hidden else super().find_spec(fullname, path, target)


def close_the_room() -> None:
    """From now on other distributions cannot be imported; the project lies in the working directory."""
    allowed = needed(LIBRARIES)
    owners = importlib.metadata.packages_distributions()
    Room.hidden = frozenset(module for module, names in owners.items() if not {_normal(name) for name in names} & allowed)
    Room.hidden -= {"instpt_assets"}
    assert {"polars", "pyarrow", "dagster", "vllm"} <= Room.hidden
    sys.meta_path = [finder for finder in sys.meta_path if finder.__module__.startswith("_frozen_importlib") and finder is not PathFinder]
    sys.meta_path.append(Room)
    sys.path.insert(0, str(Path.cwd()))


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    close_the_room()
    room = importlib.import_module("instpt_assets.training")
    for module in pkgutil.iter_modules(room.__path__, "instpt_assets.training."):
        print(importlib.import_module(module.name).__name__)
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
