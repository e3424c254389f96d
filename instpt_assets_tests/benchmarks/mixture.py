"""Mixtures of very many shards and documents: seconds through Dagster, what one more shard reads, errors of ratios, bytes a document.

The shards are a few real ones, tokenized, again and again under other names; a fifth of their documents stands in texts of two. The arm takes
these texts, the raw documents that they leave and instructions. `python -m instpt_assets_tests.benchmarks.mixture`
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from instpt_assets.corpus.tables import DOCUMENTS, TableWriter
from instpt_assets.defs.shards import range_tags, register
from instpt_assets.mixture.arrays import RowWriter, TokenizedRows
from instpt_assets.mixture.mix import build_mixture
from instpt_assets.mixture.tokenized import tokenize_raw
from instpt_assets.mixture.tokenizer import train_tokenizer
from instpt_assets.recipe.arms import Component
from instpt_assets.store.making import find_or_make
from instpt_assets.store.manifest import File, Spec
from instpt_assets.store.store import Artifact, Store
from instpt_assets_tests.benchmarks import texts
from instpt_assets_tests.benchmarks.memory import resident_peak_mib
from instpt_assets_tests.mixture.synthetic import rows

sys.path.append(str(Path(__file__).parents[1] / "defs"))  # where pytest finds the tests' own modules


VOCAB_SIZE, LENGTH, BATCH = 8192, 2048, 524_288
_DOCUMENTS_A_SHARD = 400
_RATIOS = {"corpus": 0.7, "tuning": 0.1, "general": 0.2}
_PACKINGS = ("concatenate", "best_fit")


def real_shards(folder: Path, count: int, num_instructions: int) -> tuple[list[tuple[Path, Path]], Path]:
    """Folders of the tokens of some real shards, raw and of texts that hold a fifth of their documents; and of instructions."""
    records = texts.documents(texts.shared_data())
    documents = list(islice(records, count * _DOCUMENTS_A_SHARD))
    train_tokenizer([text for _, text in documents[:200]], VOCAB_SIZE, out=folder)
    shards = []
    for number, some in enumerate(batched_list(documents, _DOCUMENTS_A_SHARD)):
        raw, augmented = folder / f"raw-{number}", folder / f"augmented-{number}"
        with TableWriter(folder, f"{number}.parquet", DOCUMENTS) as writer:
            for name, text in some:
                writer.write({"document_id": f"corpus--0/{name}", "text": text, "source": "", "metadata": "{}"})
        tokenize_raw([folder / f"{number}.parquet"], tokenizer=folder / "tokenizer", out=raw)
        tokens, names = TokenizedRows(raw), pl.read_parquet(raw / "data-00000.parquet")["row_id"].to_list()
        pairs = batched_list(list(range(len(some) // 5)), 2)
        write_rows(
            augmented,
            [[token for row in pair for token in tokens.row(row)[:-1].tolist()] for pair in pairs],
            [[names[row] for row in pair] for pair in pairs],
        )
        shards.append((raw, augmented))
    # Instructions: pieces of the texts.
    tokens = TokenizedRows(shards[0][0])
    lengths = np.random.default_rng(0).integers(20, 400, num_instructions)
    ids = [tokens.tokens[first : first + length].tolist() for first, length in zip(np.arange(num_instructions) * 7, lengths, strict=True)]
    write_rows(folder / "instructions", ids, [[]] * len(ids), ["tuning", "general"] * (len(ids) // 2))
    return shards, folder / "instructions"


def batched_list(values: list[Any], size: int) -> list[list[Any]]:
    return [values[first : first + size] for first in range(0, len(values), size)]


def write_rows(out: Path, ids: list[list[int]], documents: list[list[str]], components: list[str] | None = None) -> None:
    """A tokenized artifact of these rows."""
    columns = [pa.field("component", pa.string())] if components else []
    with RowWriter(out, vocab_size=VOCAB_SIZE, eos_id=0, columns=columns) as writer:
        names = [f"row/{place}" for place in range(len(ids))]
        values = {"row_id": names, "document_ids": documents, "num_bytes": [len(row) for row in ids], "component": components or []}
        writer.append(*writer.flatten(ids), values)


class ManyShards:
    """A project without any model whose store holds the tokens of very many shards."""

    def __init__(self, root: Path, num_shards: int, packing: str) -> None:
        from light_project import WITH_PAIRS, LightProject

        arms = {"instruct": {"mixture": [{"component": name, "ratio": ratio, **_pairs(name)} for name, ratio in _RATIOS.items()]}}
        pretraining = {
            "model": {"hidden_size": 32, "num_layers": 1, "num_heads": 2, "intermediate_size": 64, "max_position_embeddings": LENGTH},
            "sequence_length": LENGTH,
            "packing": packing,
            "optimization": {"token_budget": BATCH, "batch_tokens": BATCH, "learning_rate": 0.001},
        }
        (root / "tokens").mkdir()
        self._shards, instructions = real_shards(root / "tokens", 4, 100 * num_shards)
        tokens = sum(len(TokenizedRows(raw).tokens) for raw, _ in self._shards) // 4
        # About a pass over the corpus.
        pretraining["optimization"] = {**pretraining["optimization"], "token_budget": int(num_shards * tokens / _RATIOS["corpus"])}  # type: ignore[dict-item]
        general = root / "general.jsonl"
        general.write_text('{"instruction": "Say it.", "response": "It."}\n')
        self.light = LightProject(
            root, shards="a", **WITH_PAIRS, general_instructions={"source": str(general)}, pretraining=pretraining, arms=arms
        )
        (root / "notes" / "a.jsonl").unlink()
        for number in range(num_shards):
            self._add(number)
        self._put("tokenized_instructions", "all", instructions)
        register(self.light.project, self.light.instance)

    def one_more(self, number: int) -> None:
        """Add a shard."""
        self._add(number)
        register(self.light.project, self.light.instance)

    def _add(self, number: int) -> None:
        key = f"many{number:05}"
        (self.light.root / "notes" / f"{key}.jsonl").write_text(json.dumps({"id": key, "text": key}) + "\n")
        raw, augmented = self._shards[number % len(self._shards)]
        self._put("tokenized_raw", f"notes--{key}", raw)
        self._put("synthesized/tokenized_augmented", f"notes--{key}", augmented)

    def _put(self, asset: str, partition: str, folder: Path) -> None:
        def build(spec: Spec, inputs: object, out: Path) -> dict[str, Any]:
            for file in filter(Path.is_file, folder.iterdir()):
                os.link(file, out / file.name)
            (out / "name.txt").write_text(partition)  # so that no two shards have one digest
            return {}

        store = self.light.project.store
        store.point(
            "light", find_or_make(store, Spec(asset=asset, partition=partition, code_version=0, recipe={}, inputs=()), build).artifact
        )

    def mix(self) -> dict[str, Any]:
        """Materialize the mixture; seconds, of them those of the plan alone, and the artifacts of which files were read."""
        read: set[tuple[str, str]] = set()
        fetch = Store.fetch

        def counted(store: Store, artifact: Artifact, file: File) -> Path:
            if artifact.manifest.asset.rpartition("/")[2].startswith("tokenized_") and not artifact.manifest.asset.endswith("_mixture"):
                read.add((artifact.manifest.asset, artifact.manifest.partition))
            return fetch(store, artifact, file)

        Store.fetch = counted  # type: ignore[method-assign]
        try:
            started, processor = time.perf_counter(), time.process_time()
            self.light.project.plan().spec("instruct/tokenized_mixture", "seed-0")
            planned = time.perf_counter()
            result = self.light.run("seeds", "instruct/tokenized_mixture", tags=range_tags("seed-0", "seed-0"))
            ended = time.perf_counter()
        finally:
            Store.fetch = fetch  # type: ignore[method-assign]
        if not result.success:
            raise RuntimeError([event.message for event in result.all_events if event.is_failure])
        statistics = self.light.project.plan().current("instruct/tokenized_mixture", "seed-0").manifest.statistics
        return {
            "seconds": round(ended - planned, 2),
            "cpu_seconds_with_plan": round(time.process_time() - processor, 2),
            "plan_seconds": round(planned - started, 2),
            "draw_seconds": round(statistics["seconds"], 2),
            "artifacts_read": len(read),
            "statistics": statistics,
        }


def _pairs(component: str) -> dict[str, str]:
    return {"pair_set": "synthesized"} if component == "corpus" else {}


def shards(num_shards: int, packing: str) -> dict[str, Any]:
    """A mixture of so many shards, of the same again under another recipe, and of one more."""
    with TemporaryDirectory() as folder:
        many = ManyShards(Path(folder), num_shards, packing)
        first = many.mix()
        many.one_more(num_shards)
        more = many.mix()
    statistics = first.pop("statistics")
    more.pop("statistics")
    trained = statistics["num_trained_tokens"]
    errors = {
        name: abs(part["num_tokens"] - _RATIOS[name.split(" ")[0]] * trained) / statistics["num_tokens"]
        for name, part in statistics["components"].items()
    }
    counts = ("num_tokens", "num_documents", "padding_tokens", "cut_tokens", "split_documents")
    return {
        "packing": packing,
        "shards": num_shards,
        **{name: statistics[name] for name in counts},
        "largest_ratio_error_of_budget": max(errors.values()),
        "first": first,
        "one_more_shard": more,
    }


def memory(num_documents: int, packing: str) -> dict[str, Any]:
    """Peak bytes a document of drawing a mixture that takes each of so many documents about once."""
    num_shards = 100
    of_shard = num_documents // num_shards
    indices = {
        # Made when read, as if it came from a file.
        ("tokenized_raw", f"c--{shard:04}"): lambda shard=shard: rows(
            np.random.default_rng(shard).lognormal(5.5, 0.8, of_shard).astype(np.int32) + 2,
            np.random.default_rng(shard).integers(0, 2**63, of_shard).astype(np.uint64),
        )()
        for shard in range(num_shards)
    }
    budget = sum(int(read().num_tokens.sum(dtype=np.int64)) for read in indices.values())
    with TemporaryDirectory() as folder:
        arguments: Mapping[str, Any] = {"seed": 0, "batch_tokens": BATCH, "sequence_length": LENGTH, "packing": packing}
        build_mixture(
            [Component(component="corpus")], dict(islice(indices.items(), 1)), token_budget=BATCH, out=Path(folder, "small"), **arguments
        )
        before = resident_peak_mib()
        started = time.perf_counter()
        build_mixture([Component(component="corpus")], indices, token_budget=budget, out=Path(folder, "all"), **arguments)
        seconds = time.perf_counter() - started
    peak = resident_peak_mib() - before
    return {
        "packing": packing,
        "documents": num_documents,
        "bytes_a_document": round(peak * 2**20 / num_documents, 1),
        "seconds": round(seconds, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=int, default=1000)
    parser.add_argument("--documents", type=int, nargs="*", default=[1_000_000, 10_000_000], help="of the memory series")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--memory", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory is not None:
        count, packing = arguments.memory
        print(json.dumps(memory(int(count), packing)))
        return
    result = {"shards": [shards(arguments.shards, packing) for packing in _PACKINGS], "memory": list(memories(arguments.documents))}
    print(json.dumps(result, indent=1))
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(result, indent=1), encoding="utf-8")


def memories(counts: list[int]) -> Iterator[dict[str, Any]]:
    """The memory series, each in a process of its own."""
    for packing in _PACKINGS:
        for count in counts:
            command = [sys.executable, "-m", "instpt_assets_tests.benchmarks.mixture", "--memory", str(count), packing]
            yield json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


if __name__ == "__main__":
    main()
