"""Rule-based pairs of the real corpora: pairs a passage by task, passages a second of CPU time, and a sample to read.

`python -m instpt_assets_tests.benchmarks.rule_based_pairs --sample 15 --seed 7`
"""

import argparse
import heapq
import json
import tempfile
import textwrap
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from instpt_assets.corpus.ingest import ingest
from instpt_assets.corpus.shards import list_shards
from instpt_assets.recipe.corpora import Corpus
from instpt_assets.recipe.synthesis import PairSet
from instpt_assets.recipe.writers import RuleBasedWriter
from instpt_assets.synthesis.rule_based import write_rule_based_pairs
from instpt_assets_tests.benchmarks.texts import CORPORA, shared_data

_CONTEXT = 700


def main() -> None:
    """Measure each corpus, and show the pairs whose hashes are the lowest under the seed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--sample", type=int, default=0, help="pairs of each corpus that are shown")
    parser.add_argument("--seed", default="0", help="of the sample")
    options = parser.parse_args()
    pair_set = PairSet(writer=RuleBasedWriter(kind="rule_based"), shots=3)
    for name in CORPORA:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps({"corpus": name, **measure(name, pair_set, Path(folder))}, indent=1))
            for number, (row, pair) in enumerate(
                drawn(sorted(Path(folder).glob("*/pairs/data-*.parquet")), options.sample, options.seed), 1
            ):
                show(f"{name} {number}: {row['passage_id']}", row["text"], pair)


def measure(name: str, pair_set: PairSet, folder: Path) -> dict[str, Any]:
    """Write the pairs of a corpus, shard by shard: passages, pairs a passage (all, by task), share of passages without one, passages a second."""
    totals, by_task, seconds = Counter[str](), Counter[str](), 0.0
    corpus = Corpus(source=str(shared_data() / "corpora" / name), id_field="id")
    for shard in list_shards(name, corpus):
        documents, pairs = folder / shard.slug, folder / shard.slug / "pairs"
        pairs.mkdir(parents=True)
        ingest(shard, corpus, out=documents)
        started = time.process_time()
        statistics = write_rule_based_pairs(sorted(documents.glob("data-*.parquet")), pair_set, out=pairs)
        seconds += time.process_time() - started
        totals.update(passages=statistics["num_passages"], pairs=statistics["num_pairs"], without=statistics["status"]["no_valid_pair"])
        by_task.update(statistics["pairs_by_task"])
    passages = totals["passages"]
    return {
        "num_passages": passages,
        "pairs_a_passage": round(totals["pairs"] / passages, 2),
        "by_task": {task: round(number / passages, 2) for task, number in sorted(by_task.items())},
        "without_a_pair": round(totals["without"] / passages, 3),
        "passages_a_second": round(passages / seconds),
    }


def drawn(tables: Sequence[Path], number: int, seed: str) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Passage and pair of so many pairs, those with the lowest hashes under the seed."""

    def keyed() -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
        for table in tables:
            for row in pq.read_table(table, columns=["passage_id", "text", "pairs"]).to_pylist():
                for place, pair in enumerate(row["pairs"]):
                    yield sha256(f"{seed}\0{row['passage_id']}\0{place}".encode()).hexdigest(), row, pair

    return [(row, pair) for _, row, pair in heapq.nsmallest(number, keyed(), key=lambda item: item[0])]


def show(title: str, text: str, pair: dict[str, Any]) -> None:
    """Print a pair under the part of its passage that it is about."""
    flat = " ".join(text.split())
    place = max(flat.find(pair["response"].rstrip(".")[:50]), 0)
    begin = max(0, place - _CONTEXT // 2)
    print(f"--- {title}\n{textwrap.fill(flat[begin : begin + _CONTEXT], 140, initial_indent='    ', subsequent_indent='    ')}")
    print(f"instruction: {pair['instruction']}")
    for option in pair["options"] or []:
        print(f"  - {option}")
    print(f"response: {pair['response']}")


if __name__ == "__main__":
    main()
