"""Packing the biomedicine corpus: how many documents are cut and how much is padding, concatenated and cut against best fit; and its speed.

The texts are the full papers, their abstracts, and both augmented with rule-based pairs of three shots, each a document here, in a random
order, and general instructions, each an example; their tokens are those of a byte-level BPE learned from the papers. What concatenating leaves off behind the last full sequence is padding
too. The speed is that of ten million synthetic lengths, lognormal about 245 tokens.
"""

import argparse
import json
import time
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import zstandard

from instpt_assets.augmentation.augment import augment
from instpt_assets.corpus.ingest import ingest
from instpt_assets.corpus.shards import list_shards
from instpt_assets.mixture.packing import Packed, best_fit, concatenate, num_best_fit_sequences, piece_lengths
from instpt_assets.mixture.tokenizer import Encoder, load_encoder, train_tokenizer
from instpt_assets.recipe.corpora import Corpus
from instpt_assets.recipe.synthesis import Layouts, PairSet
from instpt_assets.recipe.writers import RuleBasedWriter
from instpt_assets.synthesis.rule_based import write_rule_based_pairs
from instpt_assets_tests.benchmarks.memory import resident_peak_mib
from instpt_assets_tests.benchmarks.texts import shared_data

LENGTHS = (512, 1024, 2048, 4096)
PACKINGS = {"concatenate": concatenate, "best_fit": best_fit}
VOCAB_SIZE = 32_000
_TOKENIZER_DOCUMENTS = 200
_BATCH = 256

Ints = npt.NDArray[np.int64]


def corpora(data: Path, folder: Path, *, most_shards: int) -> dict[str, list[Path]]:
    """Tables of texts by their kind."""
    found: dict[str, list[Path]] = {}
    pair_set = PairSet(writer=RuleBasedWriter(kind="rule_based"), shots=3)
    for kind, name in (("papers", "biomedicine"), ("abstracts", "biomedicine-abstracts")):
        corpus = Corpus(source=str(data / "corpora" / name), id_field="id")
        for shard in list_shards(name, corpus)[:most_shards]:
            raw, pairs, texts = (folder / shard.slug / stage for stage in ("raw", "pairs", "texts"))
            for out in (raw, pairs, texts):
                out.mkdir(parents=True)
            ingest(shard, corpus, out=raw)
            tables = sorted(raw.glob("data-*.parquet"))
            write_rule_based_pairs(tables, pair_set, out=pairs)
            augment(sorted(pairs.glob("data-*.parquet")), tables, Layouts(), pair_set="rule_based", out=texts)
            found.setdefault(kind, []).extend(tables)
            found.setdefault(f"{kind}, augmented", []).extend(sorted(texts.glob("data-*.parquet")))
    return found


def instructions(data: Path) -> Iterator[list[str]]:
    """The general instructions as instruction tuning takes them, some at a time."""
    (path,) = (data / "general-instructions").glob("*.jsonl.zst")
    with zstandard.open(path, "rt", encoding="utf-8") as lines:
        records = map(json.loads, lines)
        while some := list(islice(records, _BATCH)):
            yield [f"{each['instruction']} {each['reasoning']} {each['response']}" for each in some]


def batches(tables: list[Path]) -> Iterator[list[str]]:
    """The texts of tables, some at a time."""
    for table in tables:
        for batch in pq.ParquetFile(table).iter_batches(batch_size=_BATCH, columns=["text"]):
            yield batch["text"].to_pylist()


def count_tokens(batched: Iterable[list[str]], encoder: Encoder) -> Ints:
    """Tokens of each text, its EOS included."""
    counts = [len(each) + 1 for texts in batched for each in encoder.tokenizer.encode_batch_fast(texts, add_special_tokens=False)]
    return np.array(counts, dtype=np.int64)


def compare(tokens: Ints, sequence_length: int) -> dict[str, Any]:
    """Both packings of documents in a random order."""
    shuffled = np.random.default_rng(0).permutation(tokens)
    fits = shuffled <= sequence_length
    row: dict[str, Any] = {"longer": float(1 - fits.mean())}
    for name, pack in PACKINGS.items():
        packed: Packed = pack(shuffled, sequence_length)
        cut = np.bincount(packed.document, minlength=len(shuffled)) > 1
        num_sequences = len(packed.bounds) - 1
        room = num_sequences * sequence_length
        row[name] = {
            "sequences": num_sequences,
            "cut": float(cut.mean()),
            "cut though they fit": float(cut[fits].mean()) if fits.any() else 0.0,
            "padding": float(1 - packed.count.sum() / room),
            "left off": float(1 - packed.count.sum() / shuffled.sum()),
        }
    return row


def counted_sequences(tokens: Ints, sequence_length: int) -> int:
    """How many sequences best fit makes, without packing."""
    return num_best_fit_sequences(piece_lengths(tokens, sequence_length))


def speed(num_documents: int, sequence_length: int) -> dict[str, Any]:
    """Seconds of packing synthetic lengths."""
    rng = np.random.default_rng(0)
    tokens = np.exp(rng.normal(5.5, 1.2, num_documents)).astype(np.int64) + 1
    row: dict[str, Any] = {"documents": num_documents, "sequence_length": sequence_length}
    for function in (counted_sequences, best_fit, concatenate):
        started = time.perf_counter()
        function(tokens, sequence_length)
        row[function.__name__] = round(time.perf_counter() - started, 2)
    return {**row, "resident_peak_mib": round(resident_peak_mib())}


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--shards", type=int, default=8, help="of the papers (all: 8)")
    parser.add_argument("--documents", type=int, default=10_000_000, help="synthetic lengths")
    parser.add_argument("--out", type=Path, default=None, help="where the JSON goes")
    options = parser.parse_args()
    result: dict[str, Any] = {"speed": [speed(options.documents, length) for length in (2048, 4096)], "texts": {}}
    for row in result["speed"]:
        print(json.dumps(row))
    with TemporaryDirectory() as folder:
        found = corpora(shared_data(), Path(folder), most_shards=options.shards)
        learned_from = [text for texts in batches(found["papers"]) for text in texts][:_TOKENIZER_DOCUMENTS]
        train_tokenizer(learned_from, VOCAB_SIZE, out=Path(folder, "bpe"))
        encoder = load_encoder(Path(folder, "bpe/tokenizer"))
        print("| texts | tokens (median) | length | longer | concatenated: cut (of those that fit) | best fit: cut | padding |")
        counted = {kind: count_tokens(batches(tables), encoder) for kind, tables in found.items()}
        counted["all together"] = np.concatenate(list(counted.values()))
        counted["instructions"] = count_tokens(instructions(shared_data()), encoder)
        for kind, tokens in counted.items():
            rows = {length: compare(tokens, length) for length in LENGTHS}
            result["texts"][kind] = {
                "documents": len(tokens),
                "tokens": int(tokens.sum()),
                "median": int(np.median(tokens)),
                "lengths": rows,
            }
            for length, row in rows.items():
                plain, fitted = row["concatenate"], row["best_fit"]
                print(
                    f"| {kind} ({len(tokens):,}) | {tokens.sum() / 1e6:.1f}M ({np.median(tokens):.0f}) | {length} | {row['longer']:.1%} "
                    f"| {plain['cut']:.1%} ({plain['cut though they fit']:.1%}) | {fitted['cut']:.1%} | {fitted['padding']:.2%} |"
                )
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
