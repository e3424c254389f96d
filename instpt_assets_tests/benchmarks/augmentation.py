"""Passages a second and core through `augment`, Parquet in, Parquet out, with five pairs each, without and with an index of evaluation
examples; and the memory that it takes, at a tenth of the passages and at all.

Passages of at most 300 words are cut from the real corpora; pairs are real ones of the task sets for tuning, drawn at random, in chains of
three. The index is of all real evaluation examples, so some of the pairs are found in it.
"""

import argparse
import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl
import zstandard

from instpt_assets.augmentation.augment import augment
from instpt_assets.corpus.contamination import ContaminationIndex
from instpt_assets.corpus.contamination_index import EvaluationExample, write_index
from instpt_assets.corpus.passages import cut_passages
from instpt_assets.recipe.synthesis import Layouts
from instpt_assets_tests.benchmarks import texts
from instpt_assets_tests.benchmarks.memory import resident_peak_mib

PAIRS, SHOTS = 5, 3
PASSAGE_WORDS = 300
_BLOCK = 20_000
_STRUCT = pl.List(pl.Struct({"instruction": pl.String, "response": pl.String, "options": pl.List(pl.String), "reasoning": pl.String}))


def real_pairs(data: Path, number: int) -> list[dict[str, Any]]:
    """So many pairs of every task set."""
    found: list[dict[str, Any]] = []
    for path in sorted((data / "tuning").rglob("*.jsonl.zst")):
        with zstandard.open(path, "rt", encoding="utf-8") as lines:
            pairs = (pair for line in lines for pair in json.loads(line)["pairs"])
            for pair in islice((pair for pair in pairs if len(pair["answer"]) < 400 and len(pair["question"]) < 400), number):
                struct = {"instruction": pair["question"], "response": pair["answer"]}
                found.append(struct | {"options": pair["options"] or [], "reasoning": pair["rationale"]})
    return found


def passages(data: Path) -> Iterator[tuple[str, list[str]]]:
    """Documents of the corpora as (id, passages), again and again under new ids."""
    cut = [(name, cut_passages(text[:20_000], _count_words, PASSAGE_WORDS)) for name, text in islice(texts.documents(data), 600)]
    turn = 0
    while True:
        yield from ((f"{turn}-{name}", pieces) for name, pieces in cut)
        turn += 1


def _count_words(pieces: Sequence[str]) -> list[int]:
    return [len(piece.split()) for piece in pieces]


def write_tables(folder: Path, data: Path, number: int) -> None:
    """`instruction_pairs` and `clean_corpus` of so many passages, in parts."""
    pool, source = real_pairs(data, 400), passages(data)
    draw = random.Random(0)
    written = part = 0
    while written < number:
        rows = list[dict[str, Any]]()
        documents = list[str]()
        while len(rows) < _BLOCK and written + len(rows) < number:
            name, pieces = next(source)
            documents.append(name)
            for position, piece in enumerate(pieces):
                place = written + len(rows)
                rows.append(
                    {
                        "passage_id": f"{name}/{position:05d}",
                        "document_id": name,
                        "chain_id": f"c{place // SHOTS:016d}",
                        "shot": place % SHOTS,
                        "text": piece,
                        "status": "ok",
                        "pairs": draw.sample(pool, PAIRS),
                    }
                )
        pl.DataFrame(rows, schema_overrides={"pairs": _STRUCT}).write_parquet(folder / f"pairs-{part:05d}.parquet", row_group_size=4096)
        metadata = json.dumps({"license": "CC-BY-4.0", "title": "A title of usual length, as papers have them"})
        clean = pl.DataFrame({"document_id": documents, "metadata": [metadata] * len(documents)})
        clean.write_parquet(folder / f"clean-{part:05d}.parquet")
        written, part = written + len(rows), part + 1


def write_examples(folder: Path, data: Path) -> None:
    """The index of all evaluation examples."""
    write_index(_examples(data), ngram_words=13, shortest=5, out=folder)


def _examples(data: Path) -> Iterator[EvaluationExample]:
    for path in sorted((data / "evaluation").glob("*.jsonl.zst")):
        with zstandard.open(path, "rt", encoding="utf-8") as lines:
            for record in map(json.loads, lines):
                text = "\n".join(
                    [record.get("question") or " ".join(record["tokens"]), record.get("context") or "", *(record.get("options") or [])]
                )
                yield EvaluationExample(path.name, str(record["id"]), text)


def measure(tables: Path, index: Path | None, *, repeats: int) -> dict[str, Any]:
    """The fastest of some runs over the tables of a folder, by the process's CPU time."""
    pairs_tables, clean_tables = (sorted(tables.glob(f"{stem}-*.parquet")) for stem in ("pairs", "clean"))
    contamination = None if index is None else ContaminationIndex.read(index)
    before, seconds = resident_peak_mib(), list[float]()
    for _ in range(repeats):
        with TemporaryDirectory() as out:
            start = time.process_time()
            statistics = augment(pairs_tables, clean_tables, Layouts(), pair_set="benchmark", out=Path(out), contamination=contamination)
            seconds.append(time.process_time() - start)
    return {
        "index": contamination is not None,
        "num_passages": statistics["num_passages"],
        "num_pairs": statistics["num_pairs"],
        "dropped_pairs": statistics["dropped_pairs"],
        "passages_per_second": round(statistics["num_passages"] / min(seconds)),
        "median_passages_per_second": round(statistics["num_passages"] / sorted(seconds)[len(seconds) // 2]),
        "megabytes_per_second": round(statistics["num_characters"] / min(seconds) / 1e6, 1),
        "resident_peak_mib": round(resident_peak_mib()),
        "mebibytes_taken": round(resident_peak_mib() - before),
    }


def measured(*arguments: str) -> dict[str, Any]:
    """One measurement in a process of its own: memory that a process had once it does not give back."""
    command = [sys.executable, "-m", "instpt_assets_tests.benchmarks.augmentation", *arguments]
    done: dict[str, Any] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    return done


def main() -> None:
    """Measure what the arguments name, print it, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passages", type=int, default=60_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--tables", type=Path, default=None, help=argparse.SUPPRESS)
    parser.add_argument("--index", type=Path, default=None, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.tables is not None:
        print(json.dumps(measure(arguments.tables, arguments.index, repeats=arguments.repeats)))
        return
    data = texts.shared_data()
    results = []
    with TemporaryDirectory() as folder:
        few, all_of_them, index = (Path(folder, name) for name in ("few", "all", "index"))
        for path in (few, all_of_them, index):
            path.mkdir()
        write_tables(few, data, arguments.passages // 10)
        write_tables(all_of_them, data, arguments.passages)
        write_examples(index, data)
        for tables in (few, all_of_them):
            for own in ([], ["--index", str(index)]):
                results.append(measured("--tables", str(tables), "--repeats", str(arguments.repeats), *own))
                print(json.dumps(results[-1]), flush=True)
    if arguments.out:
        arguments.out.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
