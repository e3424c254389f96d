"""Planted near-duplicates: how many are removed, by how much was edited and by the recipe's threshold, and how alike removed ones are.

`INSTPT_SHARED_DATA=<folder> python -m instpt_assets_tests.benchmarks.planted_duplicates` prints the table of README.md. Of real abstracts,
and of real papers, copies are made in which each word is, with the stated probability, replaced by one of another text, left out or
preceded by another (a third each). The originals are one shard, the copies of one probability the next. Recall is told by what was
planted, and by the exact Jaccard similarity of the shingles; precision by the latter.
"""

import argparse
import json
import random
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from instpt_assets.corpus.duplicates import find_duplicates
from instpt_assets.corpus.hashed_words import Hashes
from instpt_assets.corpus.shingles import shingles
from instpt_assets.corpus.signatures import write_signatures
from instpt_assets.recipe.deduplication import Deduplication
from instpt_assets_tests.benchmarks.planted_examples import documents
from instpt_assets_tests.benchmarks.texts import shared_data

EDITS = (0.01, 0.05, 0.1, 0.2)
RECIPES = ((5, 0.8), (5, 0.6), (5, 0.4), (2, 0.4))
"""Words a shingle, and thresholds."""
NEARLY = 0.05
"""What an estimate by 128 permutations may be off without surprise: about 1.5 standard deviations."""


def edited(text: str, share: float, others: Sequence[str], draw: random.Random) -> str:
    """The text with such a share of its words replaced, left out or preceded by another."""
    words = []
    for word in text.split(" "):
        match draw.randrange(3) if draw.random() < share else None:
            case 0:
                words.append(draw.choice(others))
            case 1:
                continue
            case 2:
                words += [draw.choice(others), word]
            case None:
                words.append(word)
    return " ".join(words)


def similarity(first: Hashes, second: Hashes) -> float:
    """Exact Jaccard similarity of two sets."""
    shared = len(np.intersect1d(first, second, assume_unique=True))
    return shared / (len(first) + len(second) - shared)


def measure(texts: Sequence[str], share: float, words: int, threshold: float, folder: Path) -> dict[str, Any]:
    """Plant an edited copy of each text, find duplicates, and compare with what was planted and with exact similarities."""
    draw = random.Random(f"{share}")
    vocabulary = " ".join(draw.sample(texts, min(len(texts), 50))).split()
    shards = {"c--originals": list(texts), "c--copies": [edited(text, share, vocabulary, draw) for text in texts]}
    rules = Deduplication(shingle_words=words, threshold=threshold)
    signatures, sets = {}, dict[str, Hashes]()
    begun = time.process_time()
    for shard, content in shards.items():
        ids = [f"{shard}/{number}" for number in range(len(content))]
        sets |= {name: np.unique(shingles([text], words)[0]) for name, text in zip(ids, content, strict=True)}
        (out := folder / shard).mkdir(parents=True)
        pl.DataFrame({"document_id": ids, "text": content}).write_parquet(out / "raw.parquet")
        write_signatures([out / "raw.parquet"], rules, out=out)
        signatures[shard] = out
    (out := folder / "duplicates").mkdir()
    find_duplicates(signatures, rules, out=out)
    lists = pl.concat([pl.read_parquet(out / "removed" / f"{shard}.parquet") for shard in shards])
    removed = dict(lists.select("document_id", "duplicate_of").iter_rows())
    exact = [similarity(sets[name], sets[other]) for name, other in removed.items()]
    pairs = {f"c--copies/{n}": similarity(sets[f"c--copies/{n}"], sets[f"c--originals/{n}"]) for n in range(len(texts))}
    alike = [name for name, value in pairs.items() if value >= threshold]
    return {
        "similarity of copies (mean)": float(np.mean(list(pairs.values()))),
        "planted": len(pairs),
        "planted removed": sum(name in removed for name in pairs),
        "planted of at least the threshold": len(alike),
        "of these removed": sum(name in removed for name in alike),
        "removed": len(removed),
        "removed of at least the threshold": sum(value >= threshold for value in exact),
        "removed of nearly the threshold": sum(value >= threshold - NEARLY for value in exact),
        "seconds": time.process_time() - begun,
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--texts", type=int, default=1000, help="abstracts; of papers, which are twenty times as long, a fifth")
    parser.add_argument("--out", type=Path, help="where to write JSON")
    options = parser.parse_args()
    data = shared_data()
    abstracts = pl.read_parquet(data / "corpora/biomedicine-abstracts/*.parquet")["text"].to_list()
    kinds = {"abstracts": abstracts[: options.texts], "papers": documents(data, "biomedicine")[: options.texts // 5]}
    edits = [f"{share:.0%} edited" for share in EDITS]
    print("| " + " | ".join(["texts", "words a shingle", "threshold", *edits, "recall", "precision", "nearly"]) + " |\n|" + "---|" * 10)
    rows = []
    for kind, texts in kinds.items():
        for words, threshold in RECIPES:
            found = []
            for share in EDITS:
                with tempfile.TemporaryDirectory() as folder:
                    found.append(measure(texts, share, words, threshold, Path(folder)))
            rows += [
                {"texts": kind, "words": words, "threshold": threshold, "edited": e, **row} for e, row in zip(EDITS, found, strict=True)
            ]
            total = Counter[str]()
            for row in found:
                total.update(row)
            shares = [row["planted removed"] / row["planted"] for row in found]
            recall = total["of these removed"] / total["planted of at least the threshold"]
            precision, nearly = (total[f"removed of {how} the threshold"] / total["removed"] for how in ("at least", "nearly"))
            shown = " | ".join(f"{100 * value:.1f} %" for value in (*shares, recall, precision, nearly))
            print(f"| {kind} ({len(texts):,}) | {words} | {threshold} | {shown} |", flush=True)
    if options.out is not None:
        options.out.write_text(json.dumps(rows))


if __name__ == "__main__":
    main()
