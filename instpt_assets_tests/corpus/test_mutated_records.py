"""Records and files with arbitrary damage: each record is accepted or rejected with a reason, each file read or refused; nothing crashes."""

import gzip
import json
import random
from collections.abc import Callable, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from instpt_assets.corpus.files import SourceError
from instpt_assets.corpus.ingest import ingest
from instpt_assets.corpus.shards import list_shards
from instpt_assets.recipe.corpora import Corpus

TOKENS = [
    b"NaN", b"-Infinity", b"1e999", b"-0", b"1" * 400, b"9" * 5000, b"[" * 90, b"[" * 3000, b'{"a":' * 3000, b"]", b"}", b"null",
    b'"\\ud800"', b"\\udfff", b"\\u0000", b"\x00", b"\xef\xbb\xbf", b"\r", b"\r\n", b"\xff", b"\xed\xa0\x80", b"\xf4\x90\x80\x80",
    b"\xc2\x85", b"\xe2\x80\xa8", b'"text": 1, ', b'"text": "again", ', b'"id": "same", ', b'"id": [1], ', b'"license": ["a"], ', b"\\",
    b'"', b",", b" " * 2000, b"\x1a", b"</s>", b'"text": "' + b"x" * 50_000 + b'", ',
]  # fmt: skip


def mutated(data: bytes, rng: random.Random) -> bytes:
    """The bytes with a few changes: flipped, cut, doubled, or with something awkward in them."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        place = rng.randrange(len(changed) + 1)
        match rng.randrange(5):
            case 0 if place < len(changed):
                changed[place] ^= 1 << rng.randrange(8)
            case 1:
                del changed[place : place + rng.choice((1, 3, 20))]
            case 2:
                changed[place:place] = changed[place : place + 30]
            case 3 if rng.random() < 0.2:
                del changed[place:]
            case _:
                changed[place:place] = rng.choice(TOKENS)
    return bytes(changed)


def good_line(number: int) -> bytes:
    fields = {
        "id": f"n{number}",
        "text": f"Text {number}: caf\u00e9, \U0001f600 and \u2028 more.",
        "url": None,
        "scores": [1, 2.5, {"a": "b"}],
    }
    return json.dumps(fields, ensure_ascii=number % 2 == 0).encode()


def check(source: Path, out: Path, **fields: Any) -> tuple[set[int], int]:
    """Ingest a file; positions of the records that were read, and how many. What is written must be sound."""
    corpus = Corpus.model_validate({"source": str(source), **fields})
    positions: set[int] = set()
    read = 0
    for shard in list_shards("c", corpus):
        folder = out / shard.key
        folder.mkdir(parents=True)
        statistics = ingest(shard, corpus, out=folder)
        documents, rejected = pl.read_parquet(folder / "data-*.parquet"), pl.read_parquet(folder / "rejected.parquet")
        assert statistics["num_read"] == documents.height + rejected.height
        assert statistics["num_rejected"] == sum(statistics["rejected_by_reason"].values())
        assert all(rejected["reason"]) and all(documents["text"])
        for metadata in documents["metadata"]:
            json.loads(metadata, parse_constant=pytest.fail)
        if corpus.id_field is None:
            slug = shard.file_slug
            positions |= {int(own.removeprefix(f"c/{slug}-")[:8]) for own in documents["document_id"]}
        positions |= set(rejected["position"])
        assert len(set(documents["document_id"])) == documents.height
        read += statistics["num_read"]
    return positions, read


COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.compress}


def check_lines(lines: Sequence[bytes], folder: Path, compression: str) -> None:
    source = folder / f"a.jsonl{compression}"
    source.write_bytes(COMPRESSIONS[compression](b"\n".join(lines)))
    expected = {n for n, line in enumerate(lines) if (line.removeprefix(b"\xef\xbb\xbf") if n == 0 else line).strip()}
    positions, read = check(source, folder / "whole")
    assert positions == expected
    assert check(source, folder / "parts", documents_per_shard=7) == (positions, read)
    assert check(source, folder / "ids", id_field="id")[1] == read


def mutate_lines(num: int, folder: Path) -> None:
    rng = random.Random(num)
    for number, compression in enumerate(COMPRESSIONS):
        (folder / str(number)).mkdir()
        lines = [mutated(good_line(n), rng).replace(b"\n", b" ") for n in range(num)]
        check_lines(lines, folder / str(number), compression)


def mutate_texts(num: int, folder: Path) -> None:
    rng = random.Random(num)
    texts = [mutated(f"Text {n}.\r\nCaf\u00e9.".encode(), rng).replace(b"%%", b"") for n in range(num)]
    (folder / "a.txt").write_bytes(b"%%".join(texts))
    expected = {n for n, text in enumerate(texts) if (text.removeprefix(b"\xef\xbb\xbf") if n == 0 else text).strip()}
    positions, read = check(folder / "a.txt", folder / "whole", document_separator="%%")
    assert positions == expected and read == len(expected)
    assert check(folder / "a.txt", folder / "parts", document_separator="%%", documents_per_shard=7) == (positions, read)


def mutate_files(num: int, folder: Path) -> None:
    """Whole files with damage are read or refused."""
    rng = random.Random(num)
    lines = b"\n".join(good_line(n) for n in range(8))
    pl.DataFrame({"id": list("abcdefgh"), "text": [f"Text {n}" for n in range(8)], "n": range(8)}).write_parquet(
        folder / "good.parquet", row_group_size=3
    )
    files = {"jsonl.gz": gzip.compress(lines), "jsonl.zst": zstandard.compress(lines), "parquet": (folder / "good.parquet").read_bytes()}
    refused = 0
    for number in range(num):
        ending = rng.choice(list(files))
        source = folder / f"{number}.{ending}"
        source.write_bytes(mutated(files[ending], rng))
        try:
            check(source, folder / str(number))
        except SourceError:
            refused += 1
    assert refused > num / 3


ODD_VALUES: list[Any] = [None, "plain", "", " \n", "nul \x00", "\ufeff", "x" * 100_000, "e\u0301 \u2029"]
ODD_COLUMNS: dict[str, pa.Array] = {
    "null": pa.nulls(3),
    "binary": pa.array([b"text", b"\xff", None]),
    "large": pa.array(["a", None, "b"], pa.large_string()),
    "view": pa.array(["a", None, "b"], pa.string_view()),
    "dictionary": pa.array(["a", "b", "a"]).dictionary_encode(),
    "list": pa.array([["a"], [], None]),
    "bytes in lists": pa.array([[b"a"], [b"\xff"], None]),
    "decimal": pa.array([Decimal("1.50"), None, Decimal("2")]),
    "float": pa.array([float("nan"), float("inf"), 1.5]),
    "struct": pa.array([{"a": b"\xff"}, {"a": b"b"}, None]),
    "map": pa.array([[("a", 1)], [], None], pa.map_(pa.string(), pa.int64())),
    "date": pa.array([date(2024, 2, 29), None, date(1, 1, 1)]),
    "far date": pa.array([2**30, 0, -(2**30)], pa.int32()).cast(pa.date32()),
    "nanoseconds": pa.array([1, 2**62, None], pa.timestamp("ns")),
    "far time": pa.array([2**50, 0, None], pa.timestamp("s")),
    "zone": pa.array([datetime(2024, 1, 1), None, None], pa.timestamp("us", "Europe/Berlin")),
    "no zone": pa.array([datetime(2024, 1, 1), None, None], pa.timestamp("us", "Nowhere/Atall")),
    "duration": pa.array([timedelta(days=1), None, timedelta(microseconds=1)]),
    "nanosecond duration": pa.array([1, None, 2**62], pa.duration("ns")),
    "time": pa.array([1, None, 86_399_999_999_999], pa.time64("ns")),
    "broken text": pa.Array.from_buffers(pa.string(), 3, [None, pa.py_buffer(b"\0\0\0\0\1\0\0\0\2\0\0\0\3\0\0\0"), pa.py_buffer(b"a\xffb")]),
}  # fmt: skip


@pytest.mark.parametrize("name", ODD_COLUMNS)
def test_each_row_of_a_table_with_odd_columns_is_accepted_or_rejected(tmp_path: Path, name: str) -> None:
    odd = ODD_COLUMNS[name]
    texts = pa.array(["one", "two", "three"])
    for number, columns in enumerate(({"text": odd, "n": texts}, {"text": texts, "odd": odd}, {"text": texts, "id": odd})):
        pq.write_table(pa.table(columns), tmp_path / f"{number}.parquet", store_schema=False)
        given_ids = {"id_field": "id"} if "id" in columns else {}
        assert check(tmp_path / f"{number}.parquet", tmp_path / f"out{number}", **given_ids)[1] == 3
        assert check(tmp_path / f"{number}.parquet", tmp_path / f"parts{number}", documents_per_shard=2, **given_ids)[1] == 3


def test_tables_with_columns_of_one_name_are_read_or_refused(tmp_path: Path) -> None:
    table = pa.table([pa.array(["a"]), pa.array(["b"])], names=["text", "text"])
    pq.write_table(table, tmp_path / "a.parquet")
    assert check(tmp_path / "a.parquet", tmp_path / "out")[1] == 1


@pytest.mark.parametrize("ending", ["jsonl", "jsonl.gz", "jsonl.zst", "txt", "parquet"])
@pytest.mark.parametrize("cut", [True, False])
def test_files_of_no_bytes_hold_no_record_or_are_refused(tmp_path: Path, ending: str, cut: bool) -> None:
    (tmp_path / f"a.{ending}").write_bytes(b"")
    fields = {"documents_per_shard": 2, **({"document_separator": "%%"} if ending == "txt" else {})} if cut else {}
    if ending == "parquet":
        with pytest.raises(SourceError, match=r"a\.parquet"):
            check(tmp_path / f"a.{ending}", tmp_path / "out", **fields)
    else:
        positions, read = check(tmp_path / f"a.{ending}", tmp_path / "out", **fields)
        # A text file is a document, and so a record, though an empty one.
        assert (positions, read) == (({0}, 1) if ending == "txt" and not cut else (set(), 0))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=())),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["text", "id", "license", "", "\ud800"]), inner, max_size=4)
    ),
    max_leaves=8,
)


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=st.lists(JSON | st.builds(lambda text, more: {"text": text, "more": more}, st.text(min_size=1), JSON), max_size=8))
def test_any_json_value_is_accepted_or_rejected(values: list[Any], tmp_path_factory: pytest.TempPathFactory) -> None:
    check_lines([json.dumps(value).encode() for value in values], tmp_path_factory.mktemp("json"), "")


def test_a_field_nested_more_deeply_than_anyone_can_follow_is_a_reason_to_reject(tmp_path: Path) -> None:
    depths = (50, 99, 150, 300, *range(900, 1000, 7), 5000)
    lines = [b'{"text": "x", "deep": ' + b"[" * depth + b"]" * depth + b"}" for depth in depths]
    lines += [b'[{"text": "x", "deep": ' + b"[" * depth + b"]" * depth + b"}]" for depth in depths]
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(lines))
    assert check(tmp_path / "a.jsonl", tmp_path / "out")[1] == len(lines)
    assert pl.read_parquet(tmp_path / "out/c--a/data-*.parquet").height == 4


def test_mutated_records_and_files_are_accepted_or_rejected(tmp_path: Path) -> None:
    for number, (mutate, num) in enumerate(((mutate_lines, 100), (mutate_texts, 60), (mutate_files, 60))):
        (tmp_path / str(number)).mkdir()
        mutate(num, tmp_path / str(number))


@pytest.mark.slow
def test_ten_thousand_mutated_records_and_a_thousand_files_are_accepted_or_rejected(tmp_path: Path) -> None:
    for number, (mutate, num) in enumerate(((mutate_lines, 2500), (mutate_texts, 2500), (mutate_files, 1000))):
        (tmp_path / str(number)).mkdir()
        mutate(num, tmp_path / str(number))
