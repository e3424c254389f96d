"""Ingest: every format, malformed records, normalising; nothing is lost."""

import gzip
import hashlib
import json
import sys
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import zstandard

from instpt_assets.corpus import ingest as ingest_module
from instpt_assets.corpus import raw_records
from instpt_assets.corpus.digest_set import DigestSet
from instpt_assets.corpus.files import SourceError
from instpt_assets.corpus.ingest import ingest
from instpt_assets.corpus.shards import list_shards, shard_digest
from instpt_assets.recipe.corpora import Corpus

BIG = "word " * 1_000_000


def run(source: Path, out: Path, **fields: str) -> tuple[pl.DataFrame, pl.DataFrame, dict[str, Any]]:
    corpus = Corpus.model_validate({"source": str(source), **fields})
    (shard,) = list_shards("c", corpus)
    out.mkdir()
    statistics = ingest(shard, corpus, out=out)
    return pl.read_parquet(out / "data-*.parquet"), pl.read_parquet(out / "rejected.parquet"), statistics


def test_each_object_of_a_list_on_a_line_is_a_document_that_knows_its_place(tmp_path: Path) -> None:
    lines = [
        [{"text": "one", "url": "u"}, {"title": "no text"}, {"text": "three", "odd": "\ud800"}],
        {"text": "alone"},
        [{"text": "mixed"}, 7],
        [],
    ]
    (tmp_path / "chains.jsonl").write_text("\n".join(map(json.dumps, lines)))
    documents, rejected, statistics = run(tmp_path / "chains.jsonl", tmp_path / "out")
    assert documents["document_id"].to_list() == ["c/chains-00000000-00", "c/chains-00000000-02", "c/chains-00000001"]
    places = [json.loads(metadata).get("place_in_list") for metadata in documents["metadata"]]
    assert places == [[0, 0], [0, 2], None]
    assert rejected["position"].to_list() == [0, 2, 3]
    assert rejected["record"][0] == '{"title": "no text"}'
    assert statistics["rejected_by_reason"] == {"missing text field 'text'": 1, "not a JSON object": 2}


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, out = tmp_path / "a.jsonl", tmp_path / "out"
    source.write_text('{"text": "one"}\n')
    corpus = Corpus(source=str(source))
    (shard,) = list_shards("c", corpus)
    digest = shard_digest(shard)
    out.mkdir()
    assert ingest(shard, corpus, out=out, digest=digest)["num_documents"] == 1

    def growing(*arguments: Any) -> Any:
        yield from records(*arguments)
        with source.open("a") as stream:
            stream.write('{"text": "two"}\n')

    records = ingest_module.read_records
    monkeypatch.setattr(ingest_module, "read_records", growing)
    with pytest.raises(SourceError, match=r"a\.jsonl' changed while it was read: materialize again"):
        ingest(shard, corpus, out=out, digest=digest)


def test_malformed_records_are_rejected_with_reason_and_position_and_the_rest_goes_through(tmp_path: Path) -> None:
    lines = [
        b'{"text": "good", "url": "u", "license": "CC0"}',
        b'{"text": "caf\xe9"}',
        b'{"text": "cut off',
        b'{"title": "no text"}',
        b'{"text": "  \\n "}',
        b'{"text": "</END> <QUE> <s> </s> <ANS>"}',
        b"",
        json.dumps({"text": BIG}).encode(),
        b"[1, 2]",
        b'{"text": 5}',
        b"[" * 100_000,
        b'{"text": "last", "score": NaN, "odd": "\\ud800"}',
    ]
    (tmp_path / "bad.jsonl").write_bytes(b"\n".join(lines))
    documents, rejected, statistics = run(tmp_path / "bad.jsonl", tmp_path / "out")
    assert documents["document_id"].to_list() == [f"c/bad-{i:08d}" for i in (0, 5, 7, 11)]
    assert documents["text"].to_list() == ["good", "</END> <QUE> <s> </s> <ANS>", BIG.rstrip(), "last"]
    assert json.loads(documents["metadata"][0]) == {"url": "u", "license": "CC0"}
    assert json.loads(documents["metadata"][3]) == {"score": None, "odd": "\ufffd", "license": None}
    assert [(row["position"], row["reason"].split(":")[0]) for row in rejected.iter_rows(named=True)] == [
        (1, "not valid UTF-8"),
        (2, "broken JSON"),
        (3, "missing text field 'text'"),
        (4, "empty text"),
        (8, "not a JSON object"),
        (9, "text field 'text' is not a string"),
        (10, "broken JSON"),
    ]
    assert rejected["record"][0] == '{"text": "caf\\xe9"}'
    assert len(rejected["record"][6]) == 10_000
    assert statistics["num_read"] == 11 == statistics["num_documents"] + statistics["num_rejected"]
    assert statistics["rejected_by_reason"]["broken JSON"] == 2
    assert statistics["num_characters"] == sum(map(len, documents["text"]))


@pytest.mark.parametrize("ending", ["jsonl", "jsonl.gz", "jsonl.zst", "parquet"])
def test_every_format_gives_the_same_documents(tmp_path: Path, ending: str) -> None:
    rows = [{"text": f"text {i}", "n": i} for i in range(1000)]
    data = "".join(json.dumps(row) + "\r\n" for row in rows).encode()
    path = tmp_path / f"file.{ending}"
    match ending:
        case "jsonl":
            path.write_bytes(b"\xef\xbb\xbf" + data)
        case "jsonl.gz":
            path.write_bytes(gzip.compress(data[:5000]) + gzip.compress(data[5000:]))
        case "jsonl.zst":
            path.write_bytes(zstandard.compress(data[:5000]) + zstandard.compress(data[5000:]))
        case _:
            pl.DataFrame(rows).write_parquet(path)
    documents, rejected, _ = run(path, tmp_path / "out")
    assert documents["text"].to_list() == [row["text"] for row in rows]
    assert json.loads(documents["metadata"][7]) == {"n": 7, "license": None}
    assert rejected.is_empty() and rejected.columns == ["record", "reason", "position"]


def test_txt_is_one_document(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\n\ntwo\n")
    documents, _, _ = run(tmp_path / "a.txt", tmp_path / "out", license="CC0")
    assert documents.rows() == [("c/a-00000000", "one\n\ntwo", str(tmp_path / "a.txt"), '{"license": "CC0"}')]
    (tmp_path / "b.txt").write_bytes(b"\xff\xfe")
    documents, rejected, _ = run(tmp_path / "b.txt", tmp_path / "out2")
    assert documents.is_empty() and rejected["record"].to_list() == ["\\xff\\xfe"]


def test_parquet_rows_of_wrong_type_or_bytes_are_rejected(tmp_path: Path) -> None:
    pl.DataFrame({"text": [1, 2]}).write_parquet(tmp_path / "ints.parquet")
    assert run(tmp_path / "ints.parquet", tmp_path / "out")[1]["reason"].to_list() == ["text field 'text' is not a string"] * 2
    pl.DataFrame({"text": ["a", None, " "], "when": [None, None, None]}).write_parquet(tmp_path / "gaps.parquet")
    documents, rejected, _ = run(tmp_path / "gaps.parquet", tmp_path / "out2")
    assert documents["text"].to_list() == ["a"]
    assert rejected["position"].to_list() == [1, 2]


def test_bytes_in_parquet_are_text_or_rejected_and_columns_that_json_lacks_are_kept_as_text(tmp_path: Path) -> None:
    columns = {
        "text": [b"plain", "caf\u00e9".encode(), b"caf\xe9", None],
        "key": [b"a", b"b", b"c", b"d"],
        "raw": [b"license", b"\xff", b"", b""],
        "day": [date(2024, 2, 29)] * 4,
    }
    pl.DataFrame(columns).write_parquet(tmp_path / "bytes.parquet")
    documents, rejected, statistics = run(tmp_path / "bytes.parquet", tmp_path / "out", id_field="key")
    assert documents.select("document_id", "text").rows() == [("c/a", "plain")]
    assert json.loads(documents["metadata"][0]) == {"raw": "license", "day": "2024-02-29", "license": None}
    assert [(row["position"], row["reason"]) for row in rejected.iter_rows(named=True)] == [
        (1, "not valid UTF-8: invalid start byte at byte 0"),
        (2, "not valid UTF-8: unexpected end of data at byte 3"),
        (3, "missing text field 'text'"),
    ]
    assert statistics["num_read"] == 4


@pytest.mark.parametrize("damage", ["flipped", "checksum", "no gzip", "nothing"])
def test_a_damaged_gzip_file_is_an_error_that_names_it(tmp_path: Path, damage: str) -> None:
    text = " ".join(str(number * number) for number in range(20_000))
    whole = gzip.compress(b"".join(json.dumps({"text": f"{i} {text}"}).encode() + b"\n" for i in range(20)))
    data = bytearray(whole)
    match damage:
        case "flipped":
            data[len(data) // 2 : len(data) // 2 + 40] = bytes(40)
        case "checksum":
            data[-8] ^= 0xFF
        case "no gzip":
            data = bytearray(gzip.decompress(whole))
    (tmp_path / "damaged.jsonl.gz").write_bytes(data)
    if damage == "nothing":
        assert run(tmp_path / "damaged.jsonl.gz", tmp_path / "out")[0].height == 20
        return
    with pytest.raises(SourceError, match="damaged.jsonl.gz' cannot be read as jsonl.gz"):
        run(tmp_path / "damaged.jsonl.gz", tmp_path / "out")


def test_truncated_and_foreign_files_are_errors_that_name_the_file(tmp_path: Path) -> None:
    data = json.dumps({"text": "x" * 100_000}).encode() + b"\n"
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(data)[:-20])
    (tmp_path / "cut.jsonl.zst").write_bytes(zstandard.compress(data)[:-4])
    (tmp_path / "no.parquet").write_bytes(data)
    for number, name in enumerate(("cut.jsonl.gz", "cut.jsonl.zst", "no.parquet")):
        with pytest.raises(SourceError, match=name):
            run(tmp_path / name, tmp_path / f"out{number}")


def test_ids_come_from_the_id_field_and_are_unique(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"text": "a", "key": "x"},
        {"text": "b", "key": 7},
        {"text": "c", "key": "x"},
        {"text": "d"},
        {"text": "e", "key": True},
    ]
    (tmp_path / "ids.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    documents, rejected, statistics = run(tmp_path / "ids.jsonl", tmp_path / "out", id_field="key")
    assert documents["document_id"].to_list() == ["c/x", "c/7"]
    assert rejected["reason"].to_list() == ["duplicate id: 'x'", "missing id field 'key'", "missing id field 'key'"]
    assert statistics["rejected_by_reason"] == {"duplicate id": 1, "missing id field 'key'": 2}


def test_a_set_of_digests_tells_old_from_new_as_it_grows_and_takes_little_memory() -> None:
    digests = [hashlib.md5(str(number % 30_000).encode()).digest() for number in range(40_000)] + [bytes(16)] * 2
    found, known = DigestSet(), set[bytes]()
    for digest in digests:
        assert found.add(digest) == (digest not in known)
        known.add(digest)
    assert len(found) == len(known) == 30_001
    assert sys.getsizeof(found._table) < 45 * len(found)


def test_a_licence_is_a_text_and_metadata_are_json_whatever_a_record_holds(tmp_path: Path) -> None:
    lines = [
        '{"text": "a", "license": ["MIT", "CC0"]}',
        '{"text": "b", "license": "MIT", "n": 1e999}',
        '{"text": "c", "license": null, "n": 5}',
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    documents, _, _ = run(tmp_path / "a.jsonl", tmp_path / "out")
    assert [json.loads(metadata, parse_constant=pytest.fail) for metadata in documents["metadata"]] == [
        {"license": '["MIT", "CC0"]'},
        {"license": "MIT", "n": None},
        {"license": None, "n": 5},
    ]


def test_text_is_normalised_by_the_stated_rules(tmp_path: Path) -> None:
    text = "\n\r\nE\u0301te\u0301 \t\r\nzero\x00\x07\ufeffwidth\u2028tab\there  \r\rend\ud800\n \n"
    (tmp_path / "n.jsonl").write_text(json.dumps({"text": text}))
    documents, _, _ = run(tmp_path / "n.jsonl", tmp_path / "out")
    assert documents["text"].to_list() == ["Été\nzerowidth\ntab\there\n\nend\ufffd"]


def test_the_same_input_gives_the_same_bytes_in_parts_of_bounded_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("instpt_assets.corpus.tables._PART_CHARACTERS", 20_000)
    monkeypatch.setattr("instpt_assets.corpus.tables._GROUP_CHARACTERS", 5_000)
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": f"{i} " * 50}) + "\n" for i in range(500)))
    first, _, _ = run(tmp_path / "a.jsonl", tmp_path / "one")
    run(tmp_path / "a.jsonl", tmp_path / "two")
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert len(files) > 3 and first["document_id"].n_unique() == 500
    assert [(tmp_path / "one" / n).read_bytes() for n in files] == [(tmp_path / "two" / n).read_bytes() for n in files]


def test_documentation_shards_part_the_set(tmp_path: Path) -> None:
    corpus = Corpus(source="pydoc://topics?shards=2", license="PSF-2.0")
    found: list[str] = []
    for shard in list_shards("py", corpus):
        (tmp_path / shard.key).mkdir()
        assert ingest(shard, corpus, out=tmp_path / shard.key)["num_documents"] > 10
        table = pl.read_parquet(tmp_path / shard.key / "data-*.parquet")
        found += table["document_id"].to_list()
        assert json.loads(table["metadata"][0])["license"] == "PSF-2.0"
    assert len(found) == len(set(found)) and "py/assert" in found


def test_an_archive_of_text_that_repeats_itself_is_decompressed_a_little_at_a_time(tmp_path: Path) -> None:
    line = b'{"text": "' + b"a" * 200 + b'"}\n'
    path = tmp_path / "a.jsonl.zst"
    path.write_bytes(zstandard.compress(line * 200_000))
    with path.open("rb") as stream:
        chunks = [len(chunk) for chunk in raw_records._zstd_chunks(stream)]
    assert path.stat().st_size < 10_000 and sum(chunks) == 200_000 * len(line) and max(chunks) < 8_000_000
