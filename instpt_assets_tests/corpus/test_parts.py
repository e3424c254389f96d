"""Files cut into shards of a number of records: keys, digests and ids as a file grows, and what reading the parts costs."""

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import polars as pl
import pytest
import zstandard
from pydantic import ValidationError

from instpt_assets.corpus import parts, raw_records
from instpt_assets.corpus.files import SourceError, open_file
from instpt_assets.corpus.ingest import ingest
from instpt_assets.corpus.shards import Shard, list_shards, shard_digest
from instpt_assets.recipe.corpora import Corpus

ENDINGS = ("jsonl", "jsonl.gz", "jsonl.zst", "parquet", "txt", "txt.gz", "txt.zst")
SEPARATOR = "<|endoftext|>"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INSTPT_CACHE", str(tmp_path / "cache"))


def write(path: Path, texts: Sequence[str]) -> Path:
    """The texts as a file of the format that its name tells."""
    path.parent.mkdir(exist_ok=True)
    if path.name.endswith(".parquet"):
        pl.DataFrame({"text": texts}).write_parquet(path, row_group_size=len(texts) % 5 + 2)  # other row groups as it grows
        return path
    of_text = path.name.removesuffix(".gz").removesuffix(".zst").endswith(".txt")
    data = (SEPARATOR.join(texts) if of_text else "\n".join(json.dumps({"text": text}) for text in texts)).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else zstandard.compress(data) if path.suffix == ".zst" else data)
    return path


def cut(source: Path, size: int | None = 3, **fields: Any) -> tuple[Corpus, list[Shard]]:
    of_text = {"document_separator": SEPARATOR} if ".txt" in source.name else {}
    corpus = Corpus.model_validate({"source": str(source), "documents_per_shard": size, **of_text, **fields})
    return corpus, list_shards("c", corpus)


def read(corpus: Corpus, shards: Sequence[Shard], out: Path) -> list[tuple[str, str, str]]:
    """Id, text and source of all documents of the shards."""
    found: list[tuple[str, str, str]] = []
    for shard in shards:
        folder = out / shard.key
        folder.mkdir(parents=True)
        statistics = ingest(shard, corpus, out=folder, digest=shard_digest(shard))
        assert statistics["num_read"] == statistics["num_documents"] + statistics["num_rejected"]
        found += pl.read_parquet(folder / "data-*.parquet").select("document_id", "text", "source").rows()
    return found


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_file_in_parts_gives_the_documents_of_the_whole_file_in_any_order_of_reading(tmp_path: Path, ending: str) -> None:
    texts = ["one", " ", "drei ä", *(f"text {number}" for number in range(3, 8))]
    file = write(tmp_path / f"in/a.{ending}", texts)
    whole = read(*cut(file, None), tmp_path / "whole")
    corpus, shards = cut(file)
    slug = f"a.{ending}" if ending in ("txt.gz", "txt.zst") else "a"
    assert [shard.key for shard in shards] == [f"c--{slug}-00000", f"c--{slug}-00001", f"c--{slug}-00002"]
    assert [shard.url for shard in shards][1:] == [f"{file}#00001", f"{file}#00002"]
    assert whole[2] == (f"c/{slug}-00000003", "text 3", str(file))
    assert read(corpus, shards, tmp_path / "parts") == whole
    assert sorted(read(corpus, [shards[i] for i in (2, 0, 1)], tmp_path / "mixed")) == whole


@pytest.mark.parametrize("ending", ENDINGS)
def test_what_is_appended_changes_the_last_shard_only_and_an_insertion_those_behind_it(tmp_path: Path, ending: str) -> None:
    texts = [f"text {number}" for number in range(7)]
    file = tmp_path / f"in/a.{ending}"

    def digests(texts: Sequence[str]) -> list[str]:
        return [shard_digest(shard) for shard in cut(write(file, texts))[1]]

    before = digests(texts)
    grown = digests([*texts, "more", "and more", "and more"])
    assert len(before) == 3 and len(grown) == 4
    assert [old == new for old, new in zip(before, grown, strict=False)] == [True, True, False]
    assert grown[:3] == digests([*texts, "more", "and more"])
    inserted = digests([*texts[:4], "new", *texts[4:]])
    assert [old == new for old, new in zip(before, inserted, strict=True)] == [True, False, False]
    assert digests(texts) == before


def test_keys_of_files_that_are_called_like_parts_do_not_clash(tmp_path: Path) -> None:
    for name in ("a", "a-00000", "a-00000-00000"):
        write(tmp_path / f"in/{name}.jsonl", ["x", "y", "z", name])
    corpus, shards = cut(tmp_path / "in")
    assert [shard.key for shard in shards][:4] == ["c--a-00000", "c--a-00001", "c--a-00000-00000", "c--a-00000-00001"]
    documents = read(corpus, shards, tmp_path / "out")
    assert len(documents) == 12 == len({document_id for document_id, _, _ in documents})


def test_listing_again_reads_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path / "in/a.jsonl.gz", ["x"] * 10)
    first = cut(file)[1]
    parts._read_note.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(parts, "read_raw", None)
        assert cut(file)[1] == first
    (note,) = (tmp_path / "cache/parts").iterdir()
    note.write_text("[[")
    parts._read_note.cache_clear()
    assert cut(file)[1] == first


def test_parts_read_in_order_cost_one_pass_over_a_compressed_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus, shards = cut(write(tmp_path / "in/a.jsonl.zst", [f"text {number}" for number in range(30)]))
    opened: list[str] = []

    def counted(url: str) -> IO[bytes]:
        opened.append(url)
        return open_file(url)

    monkeypatch.setattr(raw_records, "open_file", counted)
    assert len(read(corpus, shards, tmp_path / "in order")) == 30 and len(opened) == 1
    assert len(read(corpus, shards[::2], tmp_path / "with gaps")) == 15 and len(opened) == 2
    read(corpus, shards[-2::-1], tmp_path / "backwards")
    assert len(opened) == 11 and len(parts._open_files) == 1


@pytest.mark.parametrize("ending", ["jsonl", "jsonl.gz", "parquet"])
def test_a_part_whose_records_changed_after_the_listing_is_refused_and_one_of_a_file_that_grew_is_not(tmp_path: Path, ending: str) -> None:
    texts = [f"text {number}" for number in range(8)]
    corpus, shards = cut(write(tmp_path / f"in/a.{ending}", texts))
    write(tmp_path / f"in/a.{ending}", [*texts[:4], "other ", *texts[5:], "more"])
    assert len(read(corpus, shards[::2], tmp_path / "same")) == 5
    with pytest.raises(SourceError, match=r"changed after it was listed: materialize again"):
        read(corpus, [shards[1]], tmp_path / "changed")
    with pytest.raises(SourceError, match=r"a\.[a-z.]*#00000' changed while it was read"):
        ingest(shards[0], corpus, out=tmp_path / "same", digest=shards[1].part.digest if shards[1].part else None)


@pytest.mark.parametrize("ending", ["jsonl.gz", "jsonl.zst", "parquet"])
def test_a_damaged_file_is_one_shard_that_fails_and_the_others_go_on(tmp_path: Path, ending: str) -> None:
    file = write(tmp_path / f"in/a.{ending}", [f"text {number}" for number in range(9)])
    write(tmp_path / "in/b.jsonl", ["whole"])
    file.write_bytes(file.read_bytes()[:-6])
    corpus, shards = cut(tmp_path / "in")
    assert [shard.key for shard in shards] == ["c--a-00000", "c--b-00000"]
    with pytest.raises(SourceError, match=rf"a\.{ending}' cannot be read as {ending}"):
        read(corpus, shards[:1], tmp_path / "damaged")
    assert len(read(corpus, shards[1:], tmp_path / "other")) == 1
    (tmp_path / f"in/copy.{ending}").write_bytes(file.read_bytes())
    with pytest.raises(SourceError, match=rf"copy\.{ending}' cannot be read as {ending}"):
        read(*cut(tmp_path / f"in/copy.{ending}"), tmp_path / "copy")
    (tmp_path / f"in/copy.{ending}").unlink()
    write(file, [f"text {number}" for number in range(9)])
    assert len(read(*cut(tmp_path / "in"), tmp_path / "repaired")) == 10


def test_blank_lines_are_no_records_and_byte_order_mark_and_carriage_returns_no_text(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes(b'\xef\xbb\xbf\r\n\r\n{"text": "one"}\r\n \n{broken\n\n{"text": "two"}\r\n\r\n')
    corpus, shards = cut(file, 2)
    assert len(shards) == 2
    assert [row[:2] for row in read(corpus, shards, tmp_path / "out")] == [("c/a-00000002", "one"), ("c/a-00000006", "two")]
    file.write_bytes(b"\n\r\n")
    assert cut(file)[1] == []


def test_texts_between_separators_are_documents_wherever_chunks_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.txt"
    file.write_bytes(b"\xef\xbb\xbfone\n=====\ntwo ==\n=====\n\n=====\n\xff\n=====\nlast =====\n")
    for chunk in (1, 3, 1 << 20):
        monkeypatch.setattr(raw_records, "_CHUNK", chunk)
        corpus, shards = cut(file, None, document_separator="\n=====\n")
        documents = read(corpus, shards, tmp_path / str(chunk))
        assert [row[:2] for row in documents] == [("c/a-00000000", "one"), ("c/a-00000001", "two =="), ("c/a-00000004", "last =====")]
        rejected = pl.read_parquet(tmp_path / str(chunk) / "c--a" / "rejected.parquet").rows()
        assert rejected == [("\\xff", "not valid UTF-8: invalid start byte at byte 0", 3)]


def test_the_recipe_refuses_what_does_not_apply_and_hashes_nothing_that_is_unset() -> None:
    assert "documents_per_shard" not in Corpus(source="a").hashed() and "document_separator" not in Corpus(source="a").hashed()
    assert Corpus(source="a", documents_per_shard=5).hashed()["documents_per_shard"] == 5
    for fields in ({"documents_per_shard": 0}, {"source": "pydoc://topics", "documents_per_shard": 5}, {"document_separator": ""}):
        with pytest.raises(ValidationError):
            Corpus.model_validate({"source": "a", **fields})
    with pytest.raises(ValidationError, match="document_separator is for text files"):
        Corpus(source="a", format="jsonl", document_separator="x")
    with pytest.raises(ValidationError, match="format and id_field and document_separator: for files"):
        Corpus(source="pydoc://topics", format="jsonl", id_field="id", document_separator="x")
    with pytest.raises(ValidationError, match="text_field and id_field: records have fields"):
        Corpus(source="a", format="txt.gz", text_field="body", id_field="id")
    with pytest.raises(ValidationError, match="documents_per_shard: a text file .* is one document"):
        Corpus(source="a", format="txt", documents_per_shard=5)


def test_fields_that_say_nothing_of_the_files_that_are_found_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "a" / "a.jsonl", ["one"])
    write(tmp_path / "b" / "b.txt", ["one"])
    for folder, fields, told in (
        ("a", {"document_separator": "x"}, "corpus 'c': document_separator is for text files, and the corpus's format is jsonl"),
        ("b", {"id_field": "id"}, "corpus 'c': id_field: records have fields"),
    ):
        with pytest.raises(SourceError, match=told):
            list_shards("c", Corpus.model_validate({"source": str(tmp_path / folder), **fields}))
    both = Corpus(source=str(tmp_path), id_field="id", document_separator="x", documents_per_shard=5)
    assert [shard.key for shard in list_shards("c", both)] == ["c--a.a-00000", "c--b.b-00000"]
