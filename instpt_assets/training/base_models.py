"""Base models: a local folder, or a model of the Hugging Face hub at one commit; what stands for their content, and their files here.

A recipe writes `folder`, `name` or `name@revision` (a commit, tag or branch). Only the files that a stage reads count: a tokenizer is not
made anew when weights change, and nothing else in a repository matters.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from instpt_assets.corpus.files import file_digest
from instpt_assets.store.manifest import SOURCE, Spec

WEIGHT_FILES = ("config.json", "generation_config.json", "model*.safetensors", "model.safetensors.index.json")
"""Patterns of the files that a model is loaded from; only safetensors."""

_NEEDED = {"config.json", "model*.safetensors", "tokenizer.json"}
_COMMIT = re.compile(r"[0-9a-f]{40}")


class BaseModelError(ValueError):
    """A base model that cannot be used; the message names it and says what to do, for people."""


@dataclass(frozen=True)
class BaseModel:
    """A base model as it is now; made by `find_base_model`."""

    name: str
    """The folder as the recipe writes it, or the name on the hub."""
    commit: str | None
    """The commit on the hub; None for a folder."""
    digest: str
    """Stands for the content: the commit, or for a folder 64 hexadecimal digits over its files."""
    patterns: tuple[str, ...]
    """Of the files that count."""

    @property
    def pinned(self) -> str:
        """What stands for it in identities: `name@commit`, or a folder's content, wherever it is mounted."""
        return f"{self.name}@{self.commit}" if self.commit else f"sha256:{self.digest}"

    @property
    def url(self) -> str:
        """Where it is: the folder, or `hf://name@commit`."""
        return f"hf://{self.pinned}" if self.commit else self.name

    def folder(self) -> Path:
        """A local folder with the files: the folder itself, or a snapshot in the hub's cache, downloaded if need be.

        Raises:
            BaseModelError: the hub cannot be reached and the cache lacks it, or the repository lacks a file.
        """
        return Path(self.name).expanduser().absolute() if self.commit is None else _snapshot(self.name, self.commit, self.patterns)


def find_base_model(model: str, patterns: Sequence[str], *, digest: str | None = None) -> BaseModel:
    """The base model as it is now. Asks the hub only for a revision that is no commit, and takes what its cache knows where there is no hub.

    Args:
        model: as a recipe names it (a folder, `name`, or `name@revision`), or the `url` of one that was found before.
        patterns: of the files that count, e.g. `WEIGHT_FILES`.
        digest: what it must be; any by default.

    Raises:
        BaseModelError: it does not exist, the revision cannot be told, a folder lacks a file, or its content is another.
    """
    model = model.removeprefix("hf://")
    path = Path(model).expanduser()
    if path.is_dir():
        found = BaseModel(model, None, _folder_digest(path, patterns), tuple(patterns))
    else:
        name, _, revision = model.partition("@")
        commit = revision if _COMMIT.fullmatch(revision) else _commit(name, revision or None)
        found = BaseModel(name, commit, commit, tuple(patterns))
    if digest not in (None, found.digest):
        raise BaseModelError(f"the base model '{model}' has changed since this was planned: materialize again")
    return found


def planned_base_model(spec: Spec, patterns: Sequence[str]) -> BaseModel:
    """The base model among the spec's inputs, at exactly the revision that its identity stands for.

    Raises:
        BaseModelError: it cannot be had, or a local folder has changed since.
    """
    source = next(i for i in spec.inputs if i.asset.startswith(SOURCE))
    return find_base_model(source.asset.removeprefix(SOURCE), patterns, digest=source.digest)


def _folder_digest(folder: Path, patterns: Sequence[str]) -> str:
    """Over names and contents of the files that count; a file is read once a process as long as size and modification time stay."""
    files = [(name, file_digest(str(folder / name))) for name in _names(folder, patterns, str(folder))]
    return hashlib.sha256(repr(files).encode()).hexdigest()


def _commit(name: str, revision: str | None) -> str:
    return _snapshot(name, revision, ()).name


def _snapshot(name: str, revision: str | None, patterns: Sequence[str]) -> Path:
    """The folder `…/snapshots/<commit>` of the hub's cache, with the files of those patterns."""
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=list(patterns), ignore_patterns="*/*"))
    except Exception as error:  # the hub's client, its transport and its cache have exceptions of their own
        raise BaseModelError(
            f"the base model '{name}{f'@{revision}' if revision else ''}' is no folder here, and the hub does not give it "
            f"({type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no reason'}): correct the name, log in if it is gated, "
            "or, without a network, name a folder, or pin a commit that the hub's cache holds (name@commit)"
        ) from error
    _names(folder, patterns, f"{name}@{folder.name}")
    return folder


def _names(folder: Path, patterns: Sequence[str], model: str) -> list[str]:
    names = sorted(path.name for path in folder.glob("*") if path.is_file())
    lacks = [pattern for pattern in patterns if pattern in _NEEDED and not any(fnmatch(name, pattern) for name in names)]
    if lacks:
        raise BaseModelError(
            f"the base model '{model}' lacks {', '.join(lacks)}: it must be a Hugging Face model with safetensors weights and a fast tokenizer"
        )
    return [name for name in names if any(fnmatch(name, pattern) for pattern in patterns)]
