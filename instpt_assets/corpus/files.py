"""Files behind a source, local or remote (through fsspec): found without reading any, and the digests that stand for their content."""

import hashlib
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from instpt_assets.corpus.content_digests import content_digest
from instpt_assets.recipe.corpora import Format
from instpt_assets.store.outages import says_no_bucket

ENDINGS: dict[str, Format] = {
    ".jsonl.zst": "jsonl.zst",
    ".jsonl.gz": "jsonl.gz",
    ".jsonl": "jsonl",
    ".ndjson.zst": "jsonl.zst",
    ".ndjson.gz": "jsonl.gz",
    ".ndjson": "jsonl",
    ".json.zst": "jsonl.zst",
    ".json.gz": "jsonl.gz",
    ".parquet": "parquet",
    ".txt.zst": "txt.zst",
    ".txt.gz": "txt.gz",
    ".txt": "txt",
}
"""Formats by what a file's name ends with. Plain `.json` is not among them: beside data it is mostly something else."""


class SourceError(ValueError):
    """A source that cannot be used; the message names it and says why, for people."""


@dataclass(frozen=True)
class File:
    """A file behind a source."""

    url: str
    """As the source is written."""
    relative: str
    """Its path below the source's folder (below the part of a glob that has no wildcard)."""
    format: Format


def find_files(source: str, wanted: Format | None) -> Iterator[File]:
    """The files behind a source.

    A folder gives all its files (recursively) with a known ending, of that format if one is wanted; a file or a glob gives what it
    matches. Hidden files and folders are left out, and what is no file (a pipe, a socket). A link whose file is gone is among them: what
    it stands for is missed when it is read.

    Raises:
        SourceError: the source cannot be reached, its bucket does not exist, it is no file itself, or a file's format cannot be told.
    """
    try:
        fs, path = fsspec.core.url_to_fs(os.path.expanduser(source))
        fs.invalidate_cache()  # listings are kept for the life of a process, in which new files arrive
        root_given, is_glob = source.rstrip("/"), any(c in source for c in "*?[") and not fs.exists(path)
        if is_glob:
            root_given = source[: re.search(r"[*?\[]", source).start()].rpartition("/")[0]  # type: ignore[union-attr]
            found = [f for f in fs.glob(path) if not fs.isdir(f)]
        elif fs.isdir(path):
            found = fs.find(path)
        else:
            root_given = source.rpartition("/")[0]
            found = [path] if fs.exists(path) else []
        if not found and "s3" in fs.protocol:
            _see_bucket(fs, path)
    except SourceError as error:
        raise SourceError(f"source '{source}': {error}") from None
    except Exception as error:  # each remote client has exceptions of its own
        raise SourceError(f"source '{source}' cannot be listed: {error}") from error
    one_by_one = is_glob or found == [path]
    root = str(fs._strip_protocol(os.path.expanduser(root_given))).rstrip("/") if root_given else str(fs._strip_protocol("")).rstrip("/")
    if isinstance(fs, LocalFileSystem):
        if found == [path] and not _may_be_file(path):
            raise SourceError(f"source '{source}' is no file but a pipe, socket or device: copy what comes from it into a file")
        found = [file for file in found if _may_be_file(file)]
    for file in sorted(found):
        relative = str(file).removeprefix(root).lstrip("/")
        if any(part.startswith(".") for part in relative.split("/")) and found != [path]:
            continue
        told = next((known for ending, known in ENDINGS.items() if relative.endswith(ending)), None)
        if one_by_one and (wanted or told) is None:
            raise SourceError(f"the format of '{file}' cannot be told from its ending: set format")
        if one_by_one or (told is not None and wanted in (None, told)):
            format_ = wanted or told
            assert format_ is not None
            yield File(f"{root_given}/{relative}" if root_given or source.startswith("/") else relative, relative, format_)


def _see_bucket(fs: Any, path: str) -> None:
    try:
        fs.ls(path)
    except FileNotFoundError as error:
        if says_no_bucket(error):
            raise SourceError("the bucket does not exist: correct its name, or create it") from error


def _may_be_file(path: str) -> bool:
    """Whether it is a regular file, through links, or a link of which that cannot be told."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except OSError:
        return True


def file_digest(url: str, *, anew: bool = False) -> str:
    """64 hexadecimal digits that change when the file's content does.

    A local file's SHA-256, computed once as long as the file stays as it is; of a remote file what its store tells (ETag, blob id) with
    its size.

    Args:
        url: of the file.
        anew: take nothing from a listing that was kept.

    Raises:
        SourceError: the file is gone or cannot be reached.
    """
    try:
        fs, path = fsspec.core.url_to_fs(os.path.expanduser(url))
        if isinstance(fs, LocalFileSystem):
            return content_digest(path)
        if anew:
            fs.invalidate_cache(fs._parent(path))
        info: dict[str, Any] = fs.info(path)
    except Exception as error:  # each remote client has exceptions of its own
        raise SourceError(f"'{url}' cannot be read: {error}") from error
    known = [str(info[key]) for key in ("ETag", "etag", "blob_id", "md5Hash", "checksum", "mtime", "LastModified") if info.get(key)]
    if not known:
        raise SourceError(f"'{url}': its store tells neither ETag nor time, so that a change would go unseen")
    return hashlib.sha256(f"{known[0]}\n{info.get('size')}".encode()).hexdigest()


def open_file(url: str) -> IO[bytes]:
    """A file's bytes as a stream that can be moved in.

    Raises:
        OSError: it cannot be opened.
    """
    stream: IO[bytes] = fsspec.open(os.path.expanduser(url), "rb").open()
    return stream


def is_older(url: str, seconds: float, now: float) -> bool:
    """Whether a local file was last written to longer ago than that; a remote one appears whole."""
    fs, path = fsspec.core.url_to_fs(os.path.expanduser(url))
    try:
        return not isinstance(fs, LocalFileSystem) or not 0 <= now - os.stat(path).st_mtime < seconds
    except OSError:  # gone, or a link to nothing
        return False
