"""A dataset folder, local or remote (fsspec), that never looks complete before it is.

Locally all is written into a hidden folder beside it, which is renamed at the end. Where there is no renaming, a file `INCOMPLETE` is put
there first and taken away last, behind the card; what it marks, a later run takes over.
"""

import json
import os
import shutil
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from instpt_assets.errors import UserError
from instpt_assets.store.manifest import canonical_json

CARD, PROVENANCE, INCOMPLETE = "README.md", "provenance.json", "INCOMPLETE"


class ExportError(UserError):
    """The dataset cannot be written; the message says what to do."""


def write_dataset(url: str, data: Iterable[tuple[str, Path]], *, card: str, provenance: dict[str, Any]) -> bool:
    """Write a dataset folder; the same arguments give the same files.

    Args:
        url: a folder or a remote URL, empty or not there yet, or one that holds this very dataset.
        data: names and local paths of the data files; taken one after another.
        card: `README.md`.
        provenance: `provenance.json`; with the card it identifies the dataset, so it names the contents of all data files.

    Returns:
        Whether it was written; False where it was there already.

    Raises:
        ExportError: something else is there, or the place cannot be reached.
    """
    provenance = {**provenance, "dataset": sha256((card + canonical_json(provenance)).encode()).hexdigest()}
    texts = {PROVENANCE: json.dumps(provenance, indent=1, ensure_ascii=False) + "\n", CARD: card}
    try:
        fs, root = fsspec.core.url_to_fs(url)
        there = _files(fs, root)
        if INCOMPLETE not in there and there:
            if there.issuperset(texts) and json.loads(fs.cat_file(f"{root}/{PROVENANCE}")).get("dataset") == provenance["dataset"]:
                return False
            raise ExportError(f"OUT: {url} is not empty and holds something else: name another folder, or remove this one")
        if isinstance(fs, LocalFileSystem):
            _write_locally(Path(root), data, texts)
        else:
            _write_remotely(fs, root, there, data, texts)
    except (OSError, ImportError, ValueError) as error:
        raise ExportError(f"OUT: {url} cannot be written: {error}") from error
    except Exception as error:
        if "://" in url and not isinstance(error, UserError):  # each remote client has exceptions of its own
            raise ExportError(f"OUT: {url} cannot be written: {error}") from error
        raise
    return True


def _files(fs: Any, root: str) -> set[str]:
    """Names of the files below a folder."""
    try:
        return {path.removeprefix(root.rstrip("/")).lstrip("/") for path in fs.find(root)}
    except FileNotFoundError:
        return set()


def _write_locally(target: Path, data: Iterable[tuple[str, Path]], texts: dict[str, str]) -> None:
    draft = target.with_name(f".{target.name}.incomplete")
    shutil.rmtree(draft, ignore_errors=True)  # a killed run's
    draft.mkdir(parents=True)
    try:
        for name, path in data:
            (draft / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, draft / name)
        for name, text in texts.items():
            (draft / name).write_text(text, encoding="utf-8")
        os.replace(draft, target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _write_remotely(fs: Any, root: str, there: set[str], data: Iterable[tuple[str, Path]], texts: dict[str, str]) -> None:
    marker = f"{root}/{INCOMPLETE}"
    fs.pipe_file(marker, b"This dataset is being written, or whoever wrote it was stopped.\n")
    for name in there - {INCOMPLETE}:
        fs.rm_file(f"{root}/{name}")
    for name, path in data:
        fs.put_file(str(path), f"{root}/{name}")
    for name, text in texts.items():
        fs.pipe_file(f"{root}/{name}", text.encode())
    fs.rm_file(marker)
