"""The manifest: the record beside every artifact; identity (what it was made from) and digest (what it contains)."""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any

from pydantic import BaseModel, ConfigDict

SOURCE = "source:"
"""How the asset begins, before a URL, of an input that is no artifact."""


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Input(_Frozen):
    """One thing that an artifact is made from: an artifact, or `source:<url>` for a file, folder or hub revision."""

    asset: str
    partition: str
    identity: str
    digest: str


class Spec(_Frozen):
    """What is to be made, known before any work: it decides the identity."""

    asset: str
    """Asset key as a path, e.g. `synthesized/instruction_pairs`."""
    partition: str
    """Partition key, or `all`."""
    code_version: int
    """Raised by hand when the stage's output changes."""
    recipe: dict[str, Any]
    """The part of the recipe that the stage depends on."""
    inputs: tuple[Input, ...]
    """What it is made from."""

    @property
    def identity(self) -> str:
        """20 hexadecimal digits of SHA-256 over recipe part, code version and the inputs' digests.

        A source counts by its content, wherever it lies; its URL only tells several apart.
        """
        sources = [i.asset for i in self.inputs if i.asset.startswith(SOURCE)]
        names = dict.fromkeys(sources, SOURCE) if len(sources) == 1 else {}
        made_from = sorted([names.get(i.asset, i.asset), i.partition, i.digest] for i in self.inputs)
        return _sha256(canonical_json({"recipe": self.recipe, "code_version": self.code_version, "inputs": made_from}))[:20]

    def input(self, asset: str, partition: str | None = None) -> Input:
        """The input of that asset (and partition).

        Raises:
            KeyError: there is none, or several and no partition is given.
        """
        found = [i for i in self.inputs if i.asset == asset and partition in (None, i.partition)]
        if len(found) != 1:
            raise KeyError(f"{self.asset}/{self.partition} has {len(found)} inputs {asset}" + (f"/{partition}" if partition else ""))
        return found[0]


class File(_Frozen):
    """One immutable file of an artifact; `path` is relative to the manifest and begins with the writer's nonce."""

    path: str
    bytes: int
    sha256: str

    @property
    def name(self) -> str:
        """The path inside the artifact, without the nonce."""
        return self.path.split("/", 1)[1]


class Manifest(_Frozen):
    """`manifest.json`."""

    asset: str
    partition: str
    identity: str
    digest: str
    code_version: int
    recipe: dict[str, Any]
    inputs: tuple[Input, ...]
    files: tuple[File, ...]
    statistics: dict[str, Any]
    """What was counted and measured; null where a number is not finite."""
    versions: dict[str, str]

    @cached_property
    def by_name(self) -> Mapping[str, File]:
        """Its files by their names."""
        return {file.name: file for file in self.files}

    def as_input(self) -> Input:
        """This artifact as an input of another."""
        return Input(asset=self.asset, partition=self.partition, identity=self.identity, digest=self.digest)


LOGS = "logs/"
"""Files under this folder of an artifact (logs, times) are kept, but are no content."""


def digest_files(files: Iterable[File]) -> str:
    """64 hexadecimal digits over the names and contents of `files`, logs left out."""
    return _sha256(canonical_json(sorted([f.name, f.sha256] for f in files if not f.name.startswith(LOGS))))


def finite(value: Any) -> Any:
    """A JSON value with null for each number that JSON does not have (NaN and the infinities): no statistic is worth the work that it is about."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    return [finite(item) for item in value] if isinstance(value, list | tuple) else value


def canonical_json(value: object) -> str:
    """JSON with sorted keys and no spaces: equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
