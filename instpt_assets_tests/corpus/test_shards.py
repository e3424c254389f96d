"""Shards behind a source, and their digests."""

import hashlib
import os
import socket
from pathlib import Path

import fsspec
import pytest

from instpt_assets.corpus import content_digests
from instpt_assets.corpus.files import SourceError
from instpt_assets.corpus.shards import check_sources, list_shards, shard_digest, source_digest
from instpt_assets.recipe.corpora import Corpus


def fill(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('{"text": "x"}\n')


def keys(source: str | Path, **fields: str) -> list[str]:
    return [shard.key for shard in list_shards("c", Corpus.model_validate({"source": str(source), **fields}))]


def test_folder_gives_known_endings_recursively_without_hidden_files(tmp_path: Path) -> None:
    fill(tmp_path, "b.jsonl", "a.jsonl.gz", "sub/c.parquet", "d.txt", "e.jsonl.zst", "README.md", ".hidden.jsonl", ".git/f.jsonl")
    assert keys(tmp_path) == ["c--a", "c--b", "c--d", "c--e", "c--sub.c"]
    assert keys(tmp_path, format="parquet") == ["c--sub.c"]
    formats = {shard.slug: shard.format for shard in list_shards("c", Corpus(source=str(tmp_path)))}
    assert formats == {"a": "jsonl.gz", "b": "jsonl", "d": "txt", "e": "jsonl.zst", "sub.c": "parquet"}


def test_a_compressed_text_beside_its_plain_one_and_other_names_of_a_format_are_shards_of_their_own(tmp_path: Path) -> None:
    fill(tmp_path, "a.txt", "a.txt.gz", "a.ndjson", "a.json.zst", "metadata.json")
    assert keys(tmp_path) == ["c--a", "c--a.json.zst", "c--a.ndjson", "c--a.txt.gz"]


def test_file_and_glob(tmp_path: Path) -> None:
    fill(tmp_path, "x/a.jsonl", "x/b.jsonl", "y/a.jsonl", "x/odd.data")
    assert keys(tmp_path / "x/a.jsonl") == ["c--a"]
    assert keys(f"{tmp_path}/*/a.jsonl") == ["c--x.a", "c--y.a"]
    assert keys(tmp_path / "x/odd.data", format="jsonl") == ["c--odd.data"]
    with pytest.raises(SourceError, match=r"odd\.data.*set format"):
        keys(tmp_path / "x/odd.data")


def test_relative_sources_stay_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, "data/a.jsonl", "top.jsonl")
    monkeypatch.chdir(tmp_path)
    for source, url in (("data", "data/a.jsonl"), ("data/*.jsonl", "data/a.jsonl"), ("top.jsonl", "top.jsonl")):
        assert [shard.url for shard in list_shards("c", Corpus(source=source))] == [url]


def test_a_link_to_nothing_is_a_shard_without_a_digest_and_the_others_have_theirs(tmp_path: Path) -> None:
    fill(tmp_path, "a.jsonl")
    (tmp_path / "b.jsonl").symlink_to("nowhere.jsonl")
    (tmp_path / "c.jsonl").symlink_to("a.jsonl")
    a, b, c = list_shards("c", Corpus(source=str(tmp_path)))
    assert shard_digest(a) == shard_digest(c)
    with pytest.raises(SourceError, match=r"b\.jsonl' cannot be read"):
        shard_digest(b)
    in_parts = Corpus(source=str(tmp_path), documents_per_shard=1)
    assert [(s.key, s.part is not None and s.part.damage is not None) for s in list_shards("c", in_parts)] == [
        ("c--a-00000", False), ("c--b-00000", True), ("c--c-00000", False),
    ]  # fmt: skip
    assert [s.key for s in list_shards("c", in_parts, settled=True)] == []  # all were written just now, as far as one can tell


def test_pipes_and_sockets_are_left_out_and_refused_where_they_are_the_source(tmp_path: Path) -> None:
    fill(tmp_path, "a.jsonl")
    os.mkfifo(tmp_path / "pipe.jsonl")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket.jsonl"))
        assert keys(tmp_path) == keys(f"{tmp_path}/*.jsonl") == ["c--a"]
        for name in ("pipe.jsonl", "socket.jsonl"):
            with pytest.raises(SourceError, match=rf"{name}' is no file but a pipe, socket or device"):
                keys(tmp_path / name)


def test_nothing_found_names_corpus_and_source(tmp_path: Path) -> None:
    for source in (tmp_path, tmp_path / "missing", tmp_path / "*.jsonl"):
        with pytest.raises(SourceError) as error:
            keys(source)
        assert "corpus 'c'" in str(error.value) and str(source) in str(error.value)


def test_a_new_file_renames_no_other_shard(tmp_path: Path) -> None:
    fill(tmp_path, "a b.jsonl")
    (before,) = keys(tmp_path)
    fill(tmp_path, "a-b.jsonl", "ä.jsonl", "ö.jsonl", "a..b.jsonl")
    after = keys(tmp_path)
    assert before in after and len(set(after)) == 5
    assert all(key.isascii() and "/" not in key and ".." not in key for key in after)


def test_two_files_of_one_key_are_an_error(tmp_path: Path) -> None:
    fill(tmp_path, "a.jsonl", "a.jsonl.gz")
    with pytest.raises(SourceError, match="would both be shard 'c--a'"):
        keys(tmp_path)


def test_digest_follows_content_not_time_or_name(tmp_path: Path) -> None:
    fill(tmp_path, "a.jsonl", "b.jsonl")
    a, b = list_shards("c", Corpus(source=str(tmp_path)))
    before = shard_digest(a)
    assert before == shard_digest(b)
    os.utime(a.url, ns=(1, 1))
    assert shard_digest(a) == before
    Path(a.url).write_text('{"text": "y"}\n')
    assert shard_digest(a) != before


@pytest.fixture
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of which notes are kept, last written to a while ago; reads of it can be counted."""
    monkeypatch.setenv("INSTPT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(content_digests, "_SETTLED_NS", -(10**18))  # a test cannot wait until the change of its times is old
    file = tmp_path / "large.txt"
    file.write_bytes(b"x" * (1 << 20))
    return file


def in_new_process(file: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, int]:
    """The file's digest as a new process tells it, and how often it read the file."""
    reads = []
    read = content_digests._read
    with monkeypatch.context() as patch:
        patch.setattr(content_digests, "_read", lambda path: reads.append(path) or read(path))
        content_digests._digest.cache_clear()
        return content_digests.content_digest(str(file)), len(reads)


def test_the_digest_of_a_large_file_is_remembered_beyond_the_process(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, reads = in_new_process(large, monkeypatch)
    assert first == hashlib.sha256(large.read_bytes()).hexdigest() and reads == 1
    assert in_new_process(large, monkeypatch) == (first, 0)

    # Other bytes, of the same number and with the same modification time.
    status = large.stat()
    large.write_bytes(b"y" * (1 << 20))
    os.utime(large, ns=(status.st_atime_ns, status.st_mtime_ns))
    other, reads = in_new_process(large, monkeypatch)
    assert other == hashlib.sha256(large.read_bytes()).hexdigest() and reads == 1

    (note,) = (large.parent / "cache" / "digests").iterdir()
    note.write_text("[")
    assert in_new_process(large, monkeypatch) == (other, 1)


def test_no_digest_is_remembered_of_a_file_that_was_just_written(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(content_digests, "_SETTLED_NS", 10**18)
    assert in_new_process(large, monkeypatch)[1] == 1
    assert in_new_process(large, monkeypatch)[1] == 1


def test_a_source_that_changed_since_is_named(tmp_path: Path) -> None:
    fill(tmp_path, "a.jsonl")
    digests = {str(tmp_path): source_digest(str(tmp_path))}
    check_sources(digests)
    fill(tmp_path, "b.jsonl")
    with pytest.raises(SourceError, match=f"'{tmp_path}' changed while it was read"):
        check_sources(digests)


def test_source_digest_covers_every_file(tmp_path: Path) -> None:
    fill(tmp_path, "a.jsonl")
    before = source_digest(str(tmp_path))
    fill(tmp_path, "b.jsonl")
    assert source_digest(str(tmp_path)) != before
    with pytest.raises(SourceError):
        source_digest(str(tmp_path / "nothing"))


def test_the_digest_of_a_source_whose_format_is_given_covers_the_files_of_that_format(tmp_path: Path) -> None:
    (tmp_path / "set.data").write_text("{}")
    with pytest.raises(SourceError, match="set format"):
        source_digest(str(tmp_path / "set.data"))
    given = source_digest(str(tmp_path / "set.data"), "jsonl")
    check_sources({str(tmp_path / "set.data"): given}, {str(tmp_path / "set.data"): "jsonl"})
    (tmp_path / "set.jsonl").write_text("{}")
    folder = source_digest(str(tmp_path), "jsonl")
    (tmp_path / "notes.txt").write_text("of another format")
    assert source_digest(str(tmp_path), "jsonl") == folder != source_digest(str(tmp_path))


def test_documentation_shards_need_no_reading() -> None:
    shards = list_shards("numpy", Corpus(source="pydoc://numpy?shards=3"))
    assert [shard.key for shard in shards] == ["numpy--0000", "numpy--0001", "numpy--0002"]
    assert len({shard_digest(shard) for shard in shards}) == 3


def test_remote_source_through_fsspec() -> None:
    fs = fsspec.filesystem("memory")
    fs.pipe("/bucket/prefix/a.jsonl", b'{"text": "x"}\n')
    fs.pipe("/bucket/prefix/deep/b.txt", b"x")
    shards = list_shards("c", Corpus(source="memory://bucket/prefix"))
    assert [(shard.key, shard.url) for shard in shards] == [
        ("c--a", "memory://bucket/prefix/a.jsonl"),
        ("c--deep.b", "memory://bucket/prefix/deep/b.txt"),
    ]
    assert keys("memory://bucket/prefix/*.jsonl") == ["c--a"]
    fs.rm("/bucket", recursive=True)
