"""Real passages for the benchmarks, in chains, and a small tokenizer learned from them."""

import itertools
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import zstandard
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from instpt_assets.corpus.passages import cut_passages
from instpt_assets.synthesis.chains import Chain, Passage, plan_chains
from instpt_assets.synthesis.native import NativeFormat
from instpt_assets.synthesis.prompt import MARKERS

CORPORA = ("biomedicine", "finance")
_TRAINING_DOCUMENTS = 300


def shared_data() -> Path:
    """The folder that `INSTPT_SHARED_DATA` names; without it the benchmark ends, saying so."""
    folder = os.environ.get("INSTPT_SHARED_DATA")
    if not folder or not Path(folder, "corpora").is_dir():
        sys.exit("INSTPT_SHARED_DATA must name the folder with the real corpora (corpora/biomedicine, corpora/finance)")
    return Path(folder)


def documents(data: Path) -> Iterator[tuple[str, str]]:
    """(id, text) of the corpora's documents, one corpus after the other in turn."""
    for records in zip(*(_records(data / "corpora" / name) for name in CORPORA), strict=False):
        yield from records


def write_json_lines(folder: Path, megabytes: float, *, num_files: int = 1) -> float:
    """Write documents as JSON Lines, again and again under new ids until there are so many MB of UTF-8 text; how many it became."""
    data, written, number = shared_data(), 0, 0
    with ExitStack() as stack:
        streams = [stack.enter_context((folder / f"part-{file}.jsonl").open("w", encoding="utf-8")) for file in range(num_files)]
        while written < megabytes * 1e6:
            for name, text in documents(data):
                print(json.dumps({"id": f"{number}-{name}", "text": text}, ensure_ascii=False), file=streams[number % num_files])
                number += 1
                written += len(text.encode())
                if written >= megabytes * 1e6:
                    break
    return written / 1e6


def _records(folder: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(folder.glob("*.jsonl.zst")):
        with zstandard.open(path, "rt", encoding="utf-8") as lines:
            for line in lines:
                record = json.loads(line)
                yield record["id"], record["text"]


def learn_tokenizer(data: Path, vocab_size: int) -> Tokenizer:
    """A byte-level BPE with the markers as special tokens, from the first documents."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<pad>", "<s>", "</s>", *MARKERS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((text for _, text in itertools.islice(documents(data), _TRAINING_DOCUMENTS)), trainer)
    return tokenizer


def passages(data: Path, writer_format: NativeFormat, *, number: int, max_tokens: int) -> list[Passage]:
    """So many passages of at most so many tokens; of each document at most 6, so that many documents take part."""
    found = list[Passage]()
    for name, text in documents(data):
        pieces = cut_passages(text[:20_000], writer_format.count, max_tokens)
        found += [Passage(f"{name}/{i:05d}", name, piece, True) for i, piece in enumerate(pieces[:6])]
        if len(found) >= number:
            return found[:number]
    raise ValueError(f"the corpora have fewer than {number} passages of {max_tokens} tokens")


def chains_of(found: Sequence[Passage], shots: int) -> list[Chain]:
    """Every `shots` passages a chain: none is shorter but the last, as in the published method."""
    groups = [tuple(found[start : start + shots]) for start in range(0, len(found), shots)]
    joined = [[Passage(p.passage_id, group[0].passage_id, p.text, True) for p in group] for group in groups]
    return [chain for group in joined for chain in plan_chains(group, shots=shots, context="benchmark")]
