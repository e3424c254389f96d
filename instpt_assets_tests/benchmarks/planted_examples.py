"""Planted evaluation examples: how many are found again, by n and by what was done to them, and what is found where none was planted.

`INSTPT_SHARED_DATA=<folder> python -m instpt_assets_tests.benchmarks.planted_examples` prints the tables of README.md. Real examples of every
set under `evaluation/` are planted, one each, into pieces of real papers that overlap with nothing. What is too short to be compared (fewer
than 8 words in all) is not planted; the index lists it as skipped.
"""

import argparse
import json
import os
import random
import re
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from instpt_assets.corpus.contamination import ContaminationIndex
from instpt_assets.corpus.contamination_index import write_index
from instpt_assets.corpus.hashed_words import split_words
from instpt_assets.corpus.records import Record, read_records
from instpt_assets.corpus.shards import list_shards
from instpt_assets.evaluation.examples import source_examples
from instpt_assets.recipe.corpora import Corpus
from instpt_assets.recipe.decontamination import EvaluationSource

HOST_CHARACTERS = 3000
MIN_WORDS = 8
LENGTHS = (8, 10, 13)


def sources(data: Path) -> dict[str, EvaluationSource]:
    """Every evaluation set of the shared data."""
    names = {path.name.split(".")[0]: str(path) for path in sorted((data / "evaluation").glob("*.jsonl.zst"))}
    return {name: EvaluationSource(source=path, fields=("tokens",) if "ner" in name else None) for name, path in names.items()}


def build(data: Path, ngram_words: int, out: Path) -> ContaminationIndex:
    """The index of all sets."""
    out.mkdir()
    examples = (example for asked in source_examples(sources(data)) for example in asked.examples)
    write_index(examples, ngram_words=ngram_words, shortest=MIN_WORDS, out=out)
    return ContaminationIndex.read(out)


def documents(data: Path, corpus: str) -> list[str]:
    """The texts of a corpus of the shared data."""
    recipe = Corpus(source=str(data / "corpora" / corpus / "*.jsonl.zst"))
    items = (item for shard in list_shards(corpus, recipe) for item in read_records(shard, recipe))
    return [item.text for item in items if isinstance(item, Record)]


def plain(record: Mapping[str, Any], _: random.Random) -> str:
    """Context, question and options, as they stand."""
    return "\n".join([*(str(record[key]) for key in ("context", "question") if record.get(key)), *_options(record)])


def exam(record: Mapping[str, Any], _: random.Random) -> str:
    """As a sheet of questions prints it."""
    asked = "\n".join(str(record[key]) for key in ("context", "question") if record.get(key))
    return "\n".join(
        [f"Question: {asked}", *(f"{letter}. {option}" for letter, option in zip("ABCDEFGHIJ", _options(record), strict=False)), "Answer:"]
    )


def retyped(record: Mapping[str, Any], draw: random.Random) -> str:
    """Other case, punctuation and white space."""
    words = re.findall(r"[^\W_]+", plain(record, draw))
    return "".join(
        draw.choice([word.upper(), word.lower(), word.title()]) + draw.choice([" ", "  ", ", ", "\n", " -- ", "\u00a0"]) for word in words
    )


def half(record: Mapping[str, Any], draw: random.Random) -> str:
    """Its first or its second half."""
    words = plain(record, draw).split()
    middle = len(words) // 2
    return " ".join(draw.choice([words[: middle + 1], words[middle:]]))


def edited(share: float) -> Callable[[Mapping[str, Any], random.Random], str]:
    """So many of its words replaced, left out or preceded by another one."""

    def change(record: Mapping[str, Any], draw: random.Random) -> str:
        words = plain(record, draw).split()
        changes = (lambda w: "other", lambda w: "", lambda w: f"other {w}")
        return " ".join(draw.choice(changes)(word) if draw.random() < share else word for word in words)

    return change


VARIANTS: dict[str, Callable[[Mapping[str, Any], random.Random], str]] = {
    "exact": plain,
    "exact, as an exam prints it": exam,
    "case, punctuation, white space": retyped,
    "half of it": half,
    "5 % of its words edited": edited(0.05),
    "10 % of its words edited": edited(0.1),
}


def _options(record: Mapping[str, Any]) -> list[str]:
    if "tokens" in record:
        return [" ".join(record["tokens"])]
    return list(record.get("options") or [])


def _records(path: str) -> list[dict[str, Any]]:
    return pl.read_ndjson(path, infer_schema_length=None).to_dicts()


def hosts(index: ContaminationIndex, texts: Sequence[str]) -> list[str]:
    """Pieces of documents that overlap with nothing."""
    pieces = [text[place : place + HOST_CHARACTERS] for text in texts for place in range(0, len(text) - HOST_CHARACTERS, HOST_CHARACTERS)]
    return [piece for piece, overlap in zip(pieces, index.find(pieces), strict=True) if overlap is None]


def planted(text: str, host: str, draw: random.Random) -> str:
    """The text in a place of the host between two words."""
    place = host.index(" ", draw.randrange(len(host) // 2))
    return f"{host[:place]}\n\n{text}\n\n{host[place:]}"


def measure(
    data: Path, ngram_words: int, num_planted: int
) -> tuple[dict[str, dict[str, tuple[int, int]]], dict[str, tuple[int, int]], float]:
    """Found and planted by variant and set; flagged and all documents by corpus where nothing is planted; MB/s over the papers."""
    with tempfile.TemporaryDirectory() as folder:
        index = build(data, ngram_words, Path(folder, "index"))
        papers = documents(data, "biomedicine")
        begun = time.process_time()
        flagged = {"biomedicine": (sum(map(bool, index.find(papers))), len(papers))}
        speed = sum(len(text.encode()) for text in papers) / 1e6 / (time.process_time() - begun)
        for corpus in ("finance", "general"):
            texts = documents(data, corpus)
            flagged[corpus] = (sum(map(bool, index.find(texts))), len(texts))
        places = hosts(index, papers)
        found: dict[str, dict[str, tuple[int, int]]] = {name: {} for name in VARIANTS}
        for name, source in sources(data).items():
            draw = random.Random(name)
            long_enough = [record for record in _records(source.source) if len(split_words(plain(record, draw))) >= MIN_WORDS]
            chosen = draw.sample(long_enough, min(num_planted, len(long_enough)))
            for variant, change in VARIANTS.items():
                texts = [planted(change(record, draw), draw.choice(places), draw) for record in chosen]
                found[variant][name] = (sum(map(bool, index.find(texts))), len(texts))
    return found, flagged, speed


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    parser.add_argument("--planted", type=int, default=200, help="examples of each set")
    options = parser.parse_args()
    data = Path(os.environ["INSTPT_SHARED_DATA"])
    print("| n | set (planted) | " + " | ".join(VARIANTS) + " |\n|" + "---|" * (len(VARIANTS) + 2))
    told, figures = [], {}
    for ngram_words in LENGTHS:
        found, flagged, speed = measure(data, ngram_words, options.planted)
        for by_set in found.values():
            by_set["all"] = (sum(hits for hits, _ in by_set.values()), sum(of for _, of in by_set.values()))
        for name, (_, of) in next(iter(found.values())).items():
            recalls = [f"{100 * by_set[name][0] / of:.1f} %" for by_set in found.values()]
            print(f"| {ngram_words} | {name} ({of:,}) | " + " | ".join(recalls) + " |")
        unplanted = ", ".join(f"{hits:,} of {of:,} ({corpus})" for corpus, (hits, of) in flagged.items())
        told.append(f"n = {ngram_words}: documents found without anything planted: {unplanted}; {speed:.0f} MB/s")
        figures[ngram_words] = {"found": found, "unplanted": flagged, "megabytes_per_second": speed}
    print("\n".join(told))
    if options.out is not None:
        options.out.write_text(json.dumps(figures, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
