"""What killed processes leave in a store: drafts that no manifest names, unfinished work, leases, temporary files; and what can be thrown away.

Nobody can tell from a store alone whether a writer on some machine is alive, so age decides: what nothing was written to for many days goes.
Unfinished work counts as a sign of life of its artifact: a long training writes its state there and nothing into its draft. Committed files,
pointers and registrations are never touched. (Parts of uploads that S3 never completed are no files: a bucket's lifecycle rule removes them.)
"""

import re
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from fsspec.implementations.local import LocalFileSystem

from instpt_assets.store.lease import LEASES
from instpt_assets.store.store import CACHE, DRAFTS, Store, cache_folder

_TEMPORARY = re.compile(rf"(.*/)?\.[^/]+\.[0-9a-f]{{32}}|{LEASES}/.+\.json|{CACHE}/[^/]+/[^/]+\.bin")
"""A lease that lives is renewed all the time; what the cache lacks is made again."""
_UNFINISHED = re.compile(r"_progress/(?P<artifact>.+?/[0-9a-f]{20})(/.*)?")
TRAINING = "training"
"""Where in the cache states of trainings lie that one with a larger budget goes on from, in folders of folders."""
_STATE = re.compile(rf"(?P<state>{CACHE}/{TRAINING}/[^/]+/[^/]+)(/.*)?")
_WRITTEN = re.compile(rf"(?P<draft>({DRAFTS}/)?(?P<artifact>[^_].*?/[0-9a-f]{{20}})/(?P<nonce>[0-9a-f]{{12}}))(/.*)?")


@dataclass
class Leftover:
    """A file or folder that can go."""

    path: str
    bytes: int = 0
    """Size of its files."""
    modified: float = 0.0
    """When something in it was last written, in seconds since the epoch."""

    def add(self, size: int, modified: float) -> None:
        """Count a file or folder in it."""
        self.bytes += size
        self.modified = max(self.modified, modified)


def sweep(store: Store, days: float) -> Iterator[Leftover]:
    """Remove what killed writers left and nothing was written to for so many days; yields each as it is removed.

    With a store on S3 this machine's cache is swept too: drafts, the states of trainings, and copies of artifacts that nobody used for so
    long. The whole store is listed.

    Raises:
        ValueError: `days` is less than one: writers that live would lose their work.
    """
    if days < 1:
        raise ValueError(f"days {days:g} would take the work of processes that still run: give 1 or more")
    limit = time.time() - days * 24 * 3600
    yield from _sweep(store.fs, store.root, [store.root], limit)
    if not store.is_local:
        cache = str(cache_folder())
        yield from _sweep(LocalFileSystem(), cache, [cache], limit)


def _sweep(fs: Any, root: str, folders: Sequence[str], limit: float) -> Iterator[Leftover]:
    found = _listed(fs, root, folders)
    for left in [*found.temporary, *found.drafts(), *found.unfinished.values(), *found.states.values()]:
        if left.modified < limit and not _is_committed(fs, left):
            with suppress(FileNotFoundError):  # its writer lives after all, and removed it itself
                fs.rm(left.path, recursive=True)
                yield left
            if isinstance(fs, LocalFileSystem):
                with suppress(OSError):  # not empty
                    Path(left.path).parent.rmdir()


@dataclass
class _Found:
    """What was found, by `<asset>/<partition>/<identity>`."""

    written: dict[str, dict[str, Leftover]] = field(default_factory=dict)
    """Writers' folders by nonce, the committed one among them."""
    committed: set[str] = field(default_factory=set)
    """Artifacts with a manifest."""
    unfinished: dict[str, Leftover] = field(default_factory=dict)
    states: dict[str, Leftover] = field(default_factory=dict)
    temporary: list[Leftover] = field(default_factory=list)

    def drafts(self) -> Iterator[Leftover]:
        """Writers' folders that may not be committed."""
        for artifact, by_nonce in self.written.items():
            if artifact in self.committed and len(by_nonce) == 1:
                continue
            for left in by_nonce.values():
                if artifact in self.unfinished:
                    left.add(0, self.unfinished[artifact].modified)
                yield left


def _listed(fs: Any, root: str, folders: Sequence[str]) -> _Found:
    found = _Found()
    fs.invalidate_cache()
    for path, info in (item for folder in folders for item in fs.find(folder, withdirs=True, detail=True).items()):
        size, modified = int(info["size"] or 0) if info["type"] == "file" else 0, modified_at(info)
        name = path.removeprefix(f"{root}/")
        if match := _UNFINISHED.fullmatch(name):
            artifact = match["artifact"]
            found.unfinished.setdefault(artifact, Leftover(f"{root}/_progress/{artifact}")).add(size, modified)
        elif match := _STATE.fullmatch(name):
            found.states.setdefault(match["state"], Leftover(f"{root}/{match['state']}")).add(size, modified)
        elif _TEMPORARY.fullmatch(name):
            found.temporary.append(Leftover(path, size, modified))
        elif match := _WRITTEN.fullmatch(name):
            by_nonce = found.written.setdefault(match["artifact"], {})
            by_nonce.setdefault(match["nonce"], Leftover(f"{root}/{match['draft']}")).add(size, modified)
        elif name.endswith("/manifest.json"):
            found.committed.add(name.removesuffix("/manifest.json"))
    return found


def modified_at(info: dict[str, Any]) -> float:
    """Of a listed file or folder, in seconds since the epoch; S3's folders have no time."""
    found = info.get("mtime") or info.get("LastModified") or 0.0
    return found.timestamp() if isinstance(found, datetime) else float(found)


def _is_committed(fs: Any, left: Leftover) -> bool:
    """Whether a manifest beside it names its files; read now, since its writer may have committed after the listing."""
    folder, _, nonce = left.path.rpartition("/")
    try:
        manifest: bytes = fs.cat_file(f"{folder}/manifest.json")
    except FileNotFoundError:
        return False
    return f'"{nonce}/'.encode() in manifest
