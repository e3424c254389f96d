"""`raw_corpus` alone: MB of text a second and core by format, and the memory that it takes for a tenth of the text and for all of it.

Each measurement is a process of its own. The text is that of the real corpora, again and again under new ids, so that every id is looked at.
"""

import argparse
import gzip
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow.json
import pyarrow.parquet as pq
import zstandard

from instpt_assets.corpus.ingest import ingest
from instpt_assets.corpus.shards import list_shards, shard_digest
from instpt_assets.recipe.corpora import Corpus
from instpt_assets_tests.benchmarks import texts
from instpt_assets_tests.benchmarks.memory import resident_peak_mib

_CHUNK = 1 << 20


def _zstd(source: Path, target: Path) -> None:
    with source.open("rb") as plain, zstandard.open(target, "wb") as stream:
        shutil.copyfileobj(plain, stream, _CHUNK)


def _gzip(source: Path, target: Path) -> None:
    with source.open("rb") as plain, gzip.open(target, "wb", compresslevel=1) as stream:
        shutil.copyfileobj(plain, stream, _CHUNK)


def _parquet(source: Path, target: Path) -> None:
    options = pyarrow.json.ReadOptions(block_size=16 * _CHUNK)
    pq.write_table(pyarrow.json.read_json(source, read_options=options), target, compression="zstd", row_group_size=10_000)


CONVERSIONS: dict[str, Callable[[Path, Path], Any]] = {"jsonl": shutil.copyfile, "jsonl.gz": _gzip, "jsonl.zst": _zstd, "parquet": _parquet}


def measure(source: Path, documents_per_shard: int | None) -> dict[str, Any]:
    """Ingest a file; seconds of listing (with digests) and of reading, and the peak of resident memory."""
    corpus = Corpus(source=str(source), id_field="id", documents_per_shard=documents_per_shard)
    with TemporaryDirectory(dir=source.parent) as temporary:
        start = time.process_time()
        shards = [(shard, shard_digest(shard)) for shard in list_shards("corpus", corpus)]
        listed = time.process_time()
        documents = characters = 0
        for shard, digest in shards:
            out = Path(temporary, shard.key)
            out.mkdir()
            statistics = ingest(shard, corpus, out=out, digest=digest)
            documents, characters = documents + statistics["num_documents"], characters + statistics["num_characters"]
        seconds = time.process_time() - listed
    return {
        "shards": len(shards),
        "documents": documents,
        "megacharacters_a_second": characters / 1e6 / seconds,
        "listing_seconds": listed - start,
        "resident_peak_mib": resident_peak_mib(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=float, default=1000)
    parser.add_argument("--formats", nargs="+", choices=CONVERSIONS, default=list(CONVERSIONS))
    parser.add_argument("--documents-per-shard", type=int)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure is not None:
        print(json.dumps(measure(arguments.measure, arguments.documents_per_shard)))
        return
    results = []
    for file_format in arguments.formats:
        for megabytes in (arguments.megabytes / 10, arguments.megabytes):
            with TemporaryDirectory() as temporary:
                texts.write_json_lines(Path(temporary), megabytes)
                source = Path(temporary, f"text.{file_format}")
                CONVERSIONS[file_format](Path(temporary, "part-0.jsonl"), source)
                command = [sys.executable, "-m", "instpt_assets_tests.benchmarks.ingest", "--measure", str(source)]
                cut = ["--documents-per-shard", str(arguments.documents_per_shard)] if arguments.documents_per_shard else []
                done = subprocess.run([*command, *cut], stdout=subprocess.PIPE, text=True, check=True)
            results.append({"format": file_format, "megabytes": megabytes, **json.loads(done.stdout)})
            print(results[-1], flush=True)
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(results), encoding="utf-8")


if __name__ == "__main__":
    main()
