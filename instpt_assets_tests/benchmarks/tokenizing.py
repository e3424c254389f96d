"""`tokenized_raw` against the tokenizers library: MB of text a second on the same texts and cores, end to end, and the memory that it takes.

Ours is the stage as the graph runs it: a table in, arrays and a table out. `encode_batch` and `encode_batch_fast` get the texts as lists in
memory, in batches of the same size, and their results are dropped: nothing is read, converted or written. datatrove's tokenizer step reads
the same table and writes its own files, unshuffled; `--datatrove PYTHON` names an interpreter that has it. Sides take turns, each in a process
of its own; a side reads a small table first, so that libraries are loaded. The tokenizer is learned from the first documents.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl

from instpt_assets.corpus.tables import DOCUMENTS, TableWriter
from instpt_assets.mixture.tokenized import tokenize_raw
from instpt_assets.mixture.tokenizer import BATCH_CHARACTERS, load_encoder, train_tokenizer
from instpt_assets_tests.benchmarks import texts
from instpt_assets_tests.benchmarks.corpus_against_datatrove import on_cores
from instpt_assets_tests.benchmarks.memory import resident_peak_mib

VOCAB_SIZE = 32_000
TOKENIZER_MEGABYTES = 5.0
WARM_UP_MEGABYTES = 0.2


def ours(table: Path, tokenizer: Path, out: Path) -> Callable[[], int]:
    """The stage; gives the number of tokens, EOS not counted."""

    def run() -> int:
        statistics = tokenize_raw([table], tokenizer=tokenizer, out=out)
        return int(statistics["num_tokens"] - statistics["num_rows"])

    return run


def plain(name: str, table: Path, tokenizer: Path) -> Callable[[], int]:
    """The library's method alone, on lists of texts in memory."""
    batches: list[list[str]] = [[]]
    held = 0
    for text in pl.read_parquet(table)["text"]:
        if held >= BATCH_CHARACTERS:
            batches.append([])
            held = 0
        batches[-1].append(text)
        held += len(text)
    encode = getattr(load_encoder(tokenizer).tokenizer, name)
    return lambda: sum(len(encoding) for batch in batches for encoding in encode(batch, add_special_tokens=False))


def measure(side: str, folder: Path, name: str) -> dict[str, Any]:
    """What one side took for the table of that name."""
    with TemporaryDirectory(dir=folder) as temporary:
        for number, which in enumerate(("warm-up", name)):
            table, tokenizer = folder / f"{which}.parquet", folder / "tokenizer"
            run = ours(table, tokenizer, Path(temporary, str(number))) if side == "ours" else plain(side, table, tokenizer)
            wall, processor = time.perf_counter(), time.process_time()
            num_tokens = run()
            seconds = {"wall_seconds": time.perf_counter() - wall, "processor_seconds": time.process_time() - processor}
    return {"num_tokens": num_tokens, **seconds, "resident_peak_mib": resident_peak_mib()}


def write_table(path: Path, megabytes: float) -> float:
    """A table as `clean_corpus` writes it, the real documents again and again under new ids; how many MB of text it became."""
    data, written, number = texts.shared_data(), 0, 0
    with TableWriter(path.parent, path.name, DOCUMENTS) as writer:
        while written < megabytes * 1e6:
            for name, text in texts.documents(data):
                writer.write({"document_id": f"corpus--0/{number}-{name}", "text": text, "source": "", "metadata": "{}"})
                written, number = written + len(text.encode()), number + 1
                if written >= megabytes * 1e6:
                    break
    return written / 1e6


def compare(folder: Path, megabytes: float, repeats: int, cores: set[int], datatrove: str | None) -> dict[str, Any]:
    """Rates of all sides, and ours as a share of each of the others': medians over the repeats of the ratio within a repeat."""
    size = write_table(folder / "texts.parquet", megabytes)
    commands = {side: _command(side, folder, "texts") for side in ("ours", "encode_batch", "encode_batch_fast")}
    if datatrove is not None:
        script = str(Path(__file__).with_name("datatrove_tokens.py"))
        commands["datatrove"] = [datatrove, script, str(folder), "--batch-documents", "1000"]
    runs = [{side: on_cores(command, cores) for side, command in commands.items()} for _ in range(repeats)]
    # On one core the processor's time is what a quiet machine takes.
    clock = "processor_seconds" if len(cores) == 1 else "wall_seconds"
    return {
        "megabytes": size,
        "cores": len(cores),
        "num_tokens": {side: runs[0][side]["num_tokens"] for side in commands},
        "megabytes_a_second": {side: size / median(run[side][clock] for run in runs) for side in commands},
        "ours / other": {side: median(run[side][clock] / run["ours"][clock] for run in runs) for side in commands if side != "ours"},
    }


def memory(folder: Path, sizes: list[float], cores: set[int]) -> list[dict[str, Any]]:
    """The peak of the stage's resident memory by the size of its text."""
    rows = []
    for megabytes in sizes:
        size = write_table(folder / "many.parquet", megabytes)
        found = on_cores(_command("ours", folder, "many"), cores)
        rows.append({"megabytes": size, "num_tokens": found["num_tokens"], "resident_peak_mib": found["resident_peak_mib"]})
    return rows


def _command(side: str, folder: Path, name: str) -> list[str]:
    return [sys.executable, "-m", "instpt_assets_tests.benchmarks.tokenizing", "--side", side, str(folder), name]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--datatrove", metavar="PYTHON", help="an interpreter that has datatrove; without it ours and the library's alone")
    parser.add_argument("--megabytes", type=float, default=20)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--cores", type=lambda text: {int(core) for core in text.split(",")}, default={0}, help="numbers, e.g. 0,1")
    parser.add_argument("--memory", type=float, nargs="*", default=[100, 1000], metavar="MB", help="sizes of the text of the memory series")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--side", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side is not None:
        side, folder, name = arguments.side
        print(json.dumps(measure(side, Path(folder), name)))
        return
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_table(folder / "warm-up.parquet", WARM_UP_MEGABYTES)
        write_table(folder / "learned.parquet", TOKENIZER_MEGABYTES)
        train_tokenizer(pl.read_parquet(folder / "learned.parquet")["text"], VOCAB_SIZE, out=folder)
        result: dict[str, Any] = {"rates": compare(folder, arguments.megabytes, arguments.repeats, arguments.cores, arguments.datatrove)}
        every = set(range(os.cpu_count() or 1)) & os.sched_getaffinity(0)
        result["memory"] = memory(folder, arguments.memory, every)
    print(json.dumps(result, indent=1))
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(result, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
