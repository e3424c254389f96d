"""The shards behind a corpus's source: one a file, listed without reading any, and the digests that stand for their content."""

import hashlib
import os
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from instpt_assets.corpus.content_digests import content_digest
from instpt_assets.corpus.documentation import documentation_digest
from instpt_assets.recipe.corpora import Corpus, Format
from instpt_assets.recipe.documentation import DocumentationUrl

_ENDINGS: dict[str, Format] = {
    ".jsonl.zst": "jsonl.zst",
    ".jsonl.gz": "jsonl.gz",
    ".jsonl": "jsonl",
    ".parquet": "parquet",
    ".txt": "txt",
}
_MAX_SLUG = 150
SETTLED_SECONDS = 60.0
"""A file that was written to more recently may still be growing."""


class SourceError(ValueError):
    """A source that cannot be used; the message names it and says why, for people."""


@dataclass(frozen=True)
class Shard:
    """A file-sized group of documents of one corpus."""

    key: str
    """Partition key `<corpus>--<slug>`."""
    corpus: str
    url: str
    """The file, under the source as the recipe writes it; of documentation, `pydoc://…#<number>`."""
    format: Format | None
    """None for documentation."""

    @property
    def slug(self) -> str:
        """The key without the corpus."""
        return self.key.split("--", 1)[1]


def list_shards(name: str, corpus: Corpus) -> list[Shard]:
    """The shards of a corpus, sorted by key; nothing is read.

    A folder gives all its files (recursively) with a known ending, or with the ending of `format` if the corpus states one; a file or
    a glob gives what it matches. Hidden files and folders are left out. Keys depend on each file's own path below the source only.

    Args:
        name: of the corpus.
        corpus: its recipe.

    Raises:
        SourceError: the source matches nothing, is wrong or cannot be reached, a file's format cannot be told, or two files have one key.
    """
    if corpus.source.startswith("pydoc://"):
        num_shards = DocumentationUrl.parse(corpus.source).num_shards
        return [Shard(f"{name}--{i:04d}", name, f"{corpus.source}#{i:04d}", None) for i in range(num_shards)]
    shards: dict[str, Shard] = {}
    try:
        for file in _files(corpus.source, corpus.format):
            shard = Shard(f"{name}--{_slug(file.relative)}", name, file.url, file.format)
            if shard.key in shards:
                raise SourceError(f"'{shards[shard.key].url}' and '{shard.url}' would both be shard '{shard.key}': rename one")
            shards[shard.key] = shard
    except SourceError as error:
        raise SourceError(f"corpus '{name}': {error}") from None
    if not shards:
        endings = f"*.{corpus.format}" if corpus.format else ", ".join(f"*{ending}" for ending in _ENDINGS)
        raise SourceError(f"corpus '{name}': source '{corpus.source}' matches no file (a folder gives {endings})")
    return [shards[key] for key in sorted(shards)]


def shard_digest(shard: Shard) -> str:
    """64 hexadecimal digits that change when the shard's content does.

    A local file's SHA-256, computed once as long as the file stays as it is; of a remote file what its store tells (ETag, blob id) with its
    size; of documentation the version of what it documents, with the shard's number.

    Raises:
        SourceError: the file is gone or cannot be reached.
    """
    if shard.url.startswith("pydoc://"):
        url, _, number = shard.url.partition("#")
        num_shards = DocumentationUrl.parse(url).num_shards
        return _sha256(f"{documentation_digest(url)}\n{number} of {num_shards}")
    return file_digest(shard.url)


def source_digest(url: str) -> str:
    """64 hexadecimal digits over everything behind a source that is no corpus (file, folder, glob, remote, `pydoc://…`).

    Raises:
        SourceError: nothing lies behind it, or it cannot be reached.
        ValueError: a `pydoc://` URL is wrong.
    """
    if url.startswith("pydoc://"):
        return documentation_digest(url)
    files = sorted((file.relative, file_digest(file.url)) for file in _files(url, None))
    if not files:
        raise SourceError(f"source '{url}' matches no file")
    return _sha256(repr(files))


def is_settled(shard: Shard) -> bool:
    """Whether nobody is still writing a shard's file, as far as its modification time tells; a remote one appears whole."""
    if shard.url.startswith("pydoc://"):
        return True
    try:
        fs, path = fsspec.core.url_to_fs(os.path.expanduser(shard.url))
        return not isinstance(fs, LocalFileSystem) or not 0 <= time.time() - os.stat(path).st_mtime < SETTLED_SECONDS
    except FileNotFoundError:
        return False


def check_shard(shard: Shard, digest: str) -> None:
    """Ask again for a shard's digest: what was just read must be what the identity of the result stands for.

    Raises:
        SourceError: it is another one.
    """
    if "://" in shard.url and not shard.url.startswith("pydoc://"):
        fs, path = fsspec.core.url_to_fs(shard.url)
        fs.invalidate_cache(fs._parent(path))  # a listing that was kept knows of no change
    if shard_digest(shard) != digest:
        raise _changed(shard.url)


def check_sources(digests: Mapping[str, str]) -> None:
    """As `check_shard`, for sources that are no corpus, by URL.

    Raises:
        SourceError: one has another digest.
    """
    for url, digest in digests.items():
        if source_digest(url) != digest:
            raise _changed(url)


def _changed(url: str) -> SourceError:
    return SourceError(f"'{url}' changed while it was read: materialize again when it is complete")


@dataclass(frozen=True)
class _File:
    url: str
    relative: str
    format: Format


def _files(source: str, wanted: Format | None) -> Iterator[_File]:
    """The files behind a source; `relative` is the path below its folder (below the part of a glob that has no wildcard)."""
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
    except Exception as error:  # each remote client has exceptions of its own
        raise SourceError(f"source '{source}' cannot be listed: {error}") from error
    one_by_one = is_glob or found == [path]
    root = str(fs._strip_protocol(os.path.expanduser(root_given))).rstrip("/") if root_given else str(fs._strip_protocol("")).rstrip("/")
    for file in sorted(found):
        relative = str(file).removeprefix(root).lstrip("/")
        if any(part.startswith(".") for part in relative.split("/")) and found != [path]:
            continue
        told = next((known for ending, known in _ENDINGS.items() if relative.endswith(ending)), None)
        if one_by_one and (wanted or told) is None:
            raise SourceError(f"the format of '{file}' cannot be told from its ending: set format")
        if one_by_one or (told is not None and wanted in (None, told)):
            format_ = wanted or told
            assert format_ is not None
            yield _File(f"{root_given}/{relative}" if root_given or source.startswith("/") else relative, relative, format_)


def _slug(relative: str) -> str:
    """A path as part of a key: `/` becomes `.`; what else a key cannot hold becomes `-`, told apart by a hash of the path."""
    stem = next((relative.removesuffix(ending) for ending in _ENDINGS if relative.endswith(ending)), relative)
    dotted = stem.replace("/", ".")
    slug = re.sub(r"\.{2,}|-{2,}|[^A-Za-z0-9._-]+", "-", dotted)[:_MAX_SLUG]
    return slug if slug == dotted else f"{slug}-{_sha256(relative)[:8]}"


def file_digest(url: str) -> str:
    """64 hexadecimal digits that change when the file's content does; see `shard_digest`.

    Raises:
        SourceError: the file is gone or cannot be reached.
    """
    try:
        fs, path = fsspec.core.url_to_fs(os.path.expanduser(url))
        if isinstance(fs, LocalFileSystem):
            return content_digest(path)
        info: dict[str, Any] = fs.info(path)
    except Exception as error:  # as above
        raise SourceError(f"'{url}' cannot be read: {error}") from error
    known = [str(info[key]) for key in ("ETag", "etag", "blob_id", "md5Hash", "checksum", "mtime", "LastModified") if info.get(key)]
    if not known:
        raise SourceError(f"'{url}': its store tells neither ETag nor time, so that a change would go unseen")
    return _sha256(f"{known[0]}\n{info.get('size')}")


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
