"""Sealed folders: unfinished work of which a reader sees all or nothing, also after a kill, also on another machine.

A folder is written aside, under a name of its writer's own, sealed by a record of its files' SHA-256 and renamed. Only what agrees with
its record is read. So two writers of one name do not disturb each other. With a store on S3 the folders are mirrored there (`mirror`).
"""

import errno
import hashlib
import json
import os
import shutil
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from instpt_assets.store.mirror import Mirror

RECORD = "sha256.json"
_ASIDE = ".writing-"
_STALE_SECONDS = 6 * 3600.0
"""What was written aside and not touched for so long has lost its writer."""


class SealedFolders:
    """Sealed folders under one local folder and, in the background, below a URL.

    Args:
        folder: where they lie; made when the first one is written.
        url: where they are mirrored (`s3://…`), for reruns on other machines; None: nowhere.
    """

    def __init__(self, folder: Path, url: str | None = None) -> None:
        self.folder, self._url = folder, url

    @cached_property
    def _mirror(self) -> "Mirror | None":
        if self._url is None:
            return None
        from instpt_assets.store.mirror import Mirror  # fsspec: only where it is needed

        return Mirror(self._url, self.folder)

    def names(self, prefix: str) -> list[str]:
        """Names, here or at the URL, that begin so, in order."""
        here = [path.name for path in self.folder.glob(f"{prefix}*")]
        return sorted({*here, *(name for name in (self._mirror.names() if self._mirror else ()) if name.startswith(prefix))})

    def find(self, name: str) -> Path | None:
        """The folder of that name, if it is intact; fetched from the URL where only that has it so."""
        path = self.folder / name
        if is_intact(path):
            if self._mirror is not None:
                self._mirror.put(name)  # a kill may have cut its upload short
            return path
        return path if self._mirror is not None and self._mirror.fetch(name) else None

    def seal(self, aside: Path, name: str, *, replacing: str | None = None) -> None:
        """Give a folder that `write_aside` made its name.

        Args:
            aside: the folder.
            name: its name.
            replacing: names that begin so and come before `name` are removed, here and, when it is there too, at the URL.
        """
        seal(aside, self.folder / name)
        for older in () if replacing is None else self.folder.glob(f"{replacing}*"):
            if older.name < name:
                shutil.rmtree(older, ignore_errors=True)  # another run may be removing it too
        if self._mirror is not None:
            self._mirror.put(name, replacing)

    def close(self) -> None:
        """Wait until all is at the URL, or given up."""
        if self._mirror is not None:
            self._mirror.close()


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
    (aside / RECORD).write_text(json.dumps(digests(aside)), encoding="utf-8")
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
        return json.loads((folder / RECORD).read_text(encoding="utf-8")) == digests(folder)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return False


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of each file in the folder by its name, the record left out."""
    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    files.pop(RECORD, None)
    with ThreadPoolExecutor() as threads:  # a large model's state is a file a process, of many GB each
        return dict(zip(files, threads.map(_sha256, files.values()), strict=True))


def release(sealed: Path, target: Path) -> None:
    """Give a sealed folder's files a second place, without the record; as hard links where the file system can."""

    def link(source: str, destination: str) -> None:
        try:
            os.link(source, destination)
        except OSError:
            shutil.copyfile(source, destination)

    shutil.copytree(sealed, target, ignore=shutil.ignore_patterns(RECORD), copy_function=link, dirs_exist_ok=True)


def _last_written(folder: Path) -> float:
    """When something in the folder was last written, in seconds since the epoch; 0 if it is gone."""
    times = [0.0]
    for place, _, names in os.walk(folder):
        for name in (".", *names):
            with suppress(FileNotFoundError):
                times.append(os.stat(os.path.join(place, name)).st_mtime)
    return max(times)


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
