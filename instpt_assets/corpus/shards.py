"""The shards behind a corpus's source, and the digests that stand for their content.

By default a file is a shard, listed without being read. With `documents_per_shard` it is several, found by one pass over the file (`parts`).
"""

import hashlib
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from instpt_assets.corpus.documentation import documentation_digest
from instpt_assets.corpus.files import ENDINGS, File, SourceError, file_digest, find_files, is_older
from instpt_assets.corpus.parts import Part, list_parts
from instpt_assets.recipe.corpora import Corpus, Format
from instpt_assets.recipe.documentation import DocumentationUrl

_MAX_SLUG = 150
_LEFT_OUT = (".jsonl.zst", ".jsonl.gz", ".jsonl", ".parquet", ".txt")
"""Endings that are no part of a key; others are, so that a file beside its compressed copy has another key."""
SETTLED_SECONDS = 60.0
"""A file that was written to more recently may still be growing."""


@dataclass(frozen=True)
class Shard:
    """A file-sized group of documents of one corpus."""

    key: str
    """Partition key `<corpus>--<slug>`."""
    corpus: str
    url: str
    """The file, under the source as the recipe writes it; of a part of it, `<file>#<number>`; of documentation, `pydoc://…#<number>`."""
    format: Format | None
    """None for documentation."""
    part: Part | None = None
    """Which part of the file; None where the file is one shard."""

    @property
    def slug(self) -> str:
        """The key without the corpus."""
        return self.key.split("--", 1)[1]

    @property
    def file_url(self) -> str:
        """The file, whatever part of it."""
        return self.url if self.part is None else self.url.rpartition("#")[0]

    @property
    def file_slug(self) -> str:
        """The slug that the file has, whatever part of it: ids by position do not depend on how it is cut."""
        return self.slug if self.part is None else self.slug.rpartition("-")[0]


def list_shards(name: str, corpus: Corpus, *, settled: bool = False) -> list[Shard]:
    """The shards of a corpus, by file and part; nothing is read, except files that are cut into parts, once.

    A folder gives all its files (recursively) with a known ending, or with the ending of `format` if the corpus states one; a file or
    a glob gives what it matches. Hidden files and folders are left out. Keys depend on each file's own path below the source only, and
    on the number of the part. A file without records has no parts.

    Args:
        name: of the corpus.
        corpus: its recipe.
        settled: leave out local files that somebody may still be writing, as far as their modification time tells; a remote one appears whole.

    Raises:
        SourceError: the source matches nothing, is wrong or cannot be reached, a file's format cannot be told, two files have one key, or a
            field of the recipe says nothing of such files.
    """
    if corpus.source.startswith("pydoc://"):
        num_shards = DocumentationUrl.parse(corpus.source).num_shards
        return [Shard(f"{name}--{i:04d}", name, f"{corpus.source}#{i:04d}", None) for i in range(num_shards)]
    files: dict[str, File] = {}
    try:
        for file in find_files(corpus.source, corpus.format):
            key = f"{name}--{_slug(file.relative)}"
            if key in files:
                raise SourceError(f"'{files[key].url}' and '{file.url}' would both be shard '{key}': rename one")
            files[key] = file
        if not files:
            endings = f"*.{corpus.format}" if corpus.format else ", ".join(f"*{ending}" for ending in ENDINGS)
            raise SourceError(f"source '{corpus.source}' matches no file (a folder gives {endings})")
        try:
            corpus.check_formats([file.format for file in files.values()])
        except ValueError as error:
            raise SourceError(str(error)) from None
        now = time.time()
        listed = [key for key in sorted(files) if not settled or is_older(files[key].url, SETTLED_SECONDS, now)]
        return [shard for key in listed for shard in _shards(name, key, files[key], corpus)]
    except SourceError as error:
        raise SourceError(f"corpus '{name}': {error}") from None


def _shards(name: str, key: str, file: File, corpus: Corpus) -> Iterator[Shard]:
    if corpus.documents_per_shard is None:
        yield Shard(key, name, file.url, file.format)
        return
    for number, part in enumerate(list_parts(file, corpus)):
        yield Shard(f"{key}-{number:05d}", name, f"{file.url}#{number:05d}", file.format, part)


def shard_digest(shard: Shard) -> str:
    """64 hexadecimal digits that change when the shard's content does.

    Of a file `file_digest`; of a part of it that of the part's own records; of documentation the version of what it documents, with the
    shard's number.

    Raises:
        SourceError: the file is gone or cannot be reached.
    """
    if shard.url.startswith("pydoc://"):
        url, _, number = shard.url.partition("#")
        num_shards = DocumentationUrl.parse(url).num_shards
        return _sha256(f"{documentation_digest(url)}\n{number} of {num_shards}")
    return file_digest(shard.url) if shard.part is None else shard.part.digest


def source_digest(url: str, wanted: Format | None = None) -> str:
    """64 hexadecimal digits over everything behind a source that is no corpus (file, folder, glob, remote, `pydoc://…`).

    Args:
        url: the source.
        wanted: the format that the recipe states, if it does.

    Raises:
        SourceError: nothing lies behind it, or it cannot be reached.
        ValueError: a `pydoc://` URL is wrong.
    """
    if url.startswith("pydoc://"):
        return documentation_digest(url)
    files = sorted((file.relative, file_digest(file.url)) for file in find_files(url, wanted))
    if not files:
        raise SourceError(f"source '{url}' matches no file")
    return _sha256(repr(files))


def check_shard(shard: Shard, digest: str) -> None:
    """Ask again for a shard's digest: what was just read must be what the identity of the result stands for.

    (Parts are held against theirs while they are read, and belong to a file that may have grown since.)

    Raises:
        SourceError: it is another one.
    """
    is_file = shard.part is None and not shard.url.startswith("pydoc://")
    if (file_digest(shard.url, anew=True) if is_file else shard_digest(shard)) != digest:
        raise _changed(shard.url)


def check_sources(digests: Mapping[str, str], wanted: Mapping[str, Format | None] = MappingProxyType({})) -> None:
    """As `check_shard`, for sources that are no corpus, by URL.

    Args:
        digests: by URL.
        wanted: the formats that the recipe states, by URL.

    Raises:
        SourceError: one has another digest.
    """
    for url, digest in digests.items():
        if source_digest(url, wanted.get(url)) != digest:
            raise _changed(url)


def _changed(url: str) -> SourceError:
    return SourceError(f"'{url}' changed while it was read: materialize again when it is complete")


def _slug(relative: str) -> str:
    """A path as part of a key: `/` becomes `.`; what else a key cannot hold becomes `-`, told apart by a hash of the path."""
    stem = next((relative.removesuffix(ending) for ending in _LEFT_OUT if relative.endswith(ending)), relative)
    dotted = stem.replace("/", ".")
    slug = re.sub(r"\.{2,}|-{2,}|[^A-Za-z0-9._-]+", "-", dotted)[:_MAX_SLUG]
    return slug if slug == dotted else f"{slug}-{_sha256(relative)[:8]}"


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
