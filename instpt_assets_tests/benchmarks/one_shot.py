"""Chains of one passage: what the scheduler costs where it can win nothing.

`engine`: against a single `LLM.generate` over all prompts, on real vLLM on the CPU. `scheduler`: with an engine that answers at once, the
time of the scheduler, and of tokenizing and parsing, for each passage. `memory`: `write_pairs` of one shard on a real store with such an
engine, the resident memory for 10,000 and for 100,000 passages.
"""

import argparse
import itertools
import json
import multiprocessing
import os
import random
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
from tokenizers import Tokenizer

from instpt_assets.recipe.execution import Execution
from instpt_assets.recipe.synthesis import PairSet
from instpt_assets.store.manifest import Input, Spec
from instpt_assets.store.store import Store
from instpt_assets.synthesis.chain_run import ChainRun
from instpt_assets.synthesis.chains import Chain, Passage
from instpt_assets.synthesis.native import NativeFormat
from instpt_assets.synthesis.prompt import Pair
from instpt_assets.synthesis.scheduler import Scheduler
from instpt_assets.synthesis.write_pairs import write_pairs
from instpt_assets.synthesis.writing import Generated, Request
from instpt_assets_tests.benchmarks import chains_against_rounds, texts
from instpt_assets_tests.benchmarks.memory import resident_peak_mib
from instpt_assets_tests.benchmarks.sides import CHAINS, IN_PROCESS, ROUNDS, measure
from instpt_assets_tests.benchmarks.spelling_model import kv_token_bytes, save_spelling_model

PAIR_SET = PairSet(shots=1, max_model_len=1024, max_new_tokens=400, max_passage_tokens=384)
_NUM_PAIRS = 4
_SHORT = 96
"""Passages of the long series, in tokens: short, so that they take minutes."""
_SHAPE = "5M"
_MAX_NUM_SEQS = 64
_SEQUENCE_TOKENS = 640


class InstantEngine:
    """Answers every request in the next step, with one of a few completions."""

    kv_tokens = 500_000
    max_num_seqs = 256

    def __init__(self, answers: list[tuple[int, ...]]) -> None:
        self._answers = itertools.cycle(answers)
        self._waiting: list[str] = []
        self.seconds = 0.0

    def add(self, request: Request) -> None:
        """Queue a request."""
        self._waiting.append(request.request_id)

    def step(self) -> list[Generated]:
        """Answer all of them."""
        start = time.process_time()
        ended = [Generated(name, ids, num_tokens=len(ids)) for name, ids in zip(self._waiting, self._answers, strict=False)]
        self._waiting = []
        self.seconds += time.process_time() - start
        return ended

    def close(self) -> None:
        """Nothing is left to end."""


class TimedFormat(NativeFormat):
    """The native format with the seconds that it takes."""

    seconds = 0.0

    def __getattribute__(self, name: str) -> Any:
        value = super().__getattribute__(name)
        if name not in ("prompt", "read", "extend", "num_accepted_tokens"):
            return value

        def timed(*args: Any) -> Any:
            start = time.process_time()
            try:
                return value(*args)
            finally:
                TimedFormat.seconds += time.process_time() - start

        return timed


def answers(writer_format: NativeFormat, found: list[Passage]) -> list[tuple[int, ...]]:
    """Completions of a few pairs that quote a passage."""
    made = []
    for passage in found[:64]:
        words = passage.text.split()
        draw = random.Random(passage.passage_id)
        quoted = [" ".join(words[at : at + 14]) for at in (draw.randrange(max(1, len(words) - 20)) for _ in range(2 * _NUM_PAIRS))]
        pairs = [Pair(f"What is said of {quoted[2 * i]}?", quoted[2 * i + 1]) for i in range(_NUM_PAIRS)]
        made.append(tuple(writer_format.encode_pairs(pairs)))
    return made


def against_generate(repeats: int, num_passages: int) -> dict[str, Any]:
    """The real engine, both ways, in turn; also in a process of its own."""
    data = texts.shared_data()
    tokenizer = texts.learn_tokenizer(data, chains_against_rounds.VOCAB_SIZE)
    found = texts.passages(data, NativeFormat(tokenizer), number=num_passages, max_tokens=384)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder, "checkpoint")
        save_spelling_model(checkpoint, tokenizer, _SHAPE, PAIR_SET.max_model_len)
        profile = chains_against_rounds.execution(_MAX_NUM_SEQS * _SEQUENCE_TOKENS, kv_token_bytes(_SHAPE), _MAX_NUM_SEQS)
        sides = (ROUNDS, CHAINS, IN_PROCESS)
        return measure(checkpoint, texts.chains_of(found, 1), PAIR_SET, profile, planned=True, repeats=repeats, sides=sides)


def own_cost(num_passages: int, max_tokens: int) -> dict[str, Any]:
    """Microseconds for each passage, with an engine that takes no time."""
    _, writer_format, found = _small_format(max_tokens)
    engine = InstantEngine(answers(writer_format, found))

    def source() -> Iterator[ChainRun]:
        for number in range(num_passages):
            passage = found[number % len(found)]
            yield ChainRun(Chain(str(number), str(number), (passage,)), PAIR_SET, writer_format)

    TimedFormat.seconds = 0.0
    start, num_ok = time.process_time(), 0
    for run in Scheduler(source(), lambda: engine, shots=1).run():
        num_ok += run.shots[0].status == "ok"
    seconds = time.process_time() - start - engine.seconds
    assert num_ok == num_passages
    return {
        "num_passages": num_passages,
        "max_passage_tokens": max_tokens,
        "scheduler_microseconds": 1e6 * (seconds - TimedFormat.seconds) / num_passages,
        "tokenizing_and_parsing_microseconds": 1e6 * TimedFormat.seconds / num_passages,
    }


def memory(num_passages: int) -> dict[str, Any]:
    """`write_pairs` of one shard; meant for a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        store, tokenizer_folder = Store(f"{folder}/store"), Path(folder, "model")
        tokenizer, writer_format, found = _small_format(_SHORT)
        tokenizer_folder.mkdir()
        tokenizer.save(str(tokenizer_folder / "tokenizer.json"))
        made = answers(writer_format, found)
        clean = Spec(asset="clean_corpus", partition="books--0000", code_version=1, recipe={}, inputs=())
        with store.write(clean) as draft:
            for part in range(0, num_passages, 10_000):
                rows = [(f"books/{i}", f"{i} {found[i % len(found)].text}") for i in range(part, min(part + 10_000, num_passages))]
                pl.DataFrame(rows, schema=["document_id", "text"], orient="row").write_parquet(
                    draft.folder / f"data-{part // 10_000:05d}.parquet"
                )
        model = Spec(asset="instruction_synthesizer", partition="all", code_version=1, recipe={}, inputs=())
        with store.write(model) as draft:
            (draft.folder / "nothing.txt").write_text("")
        inputs = list[Input]()
        for spec in (clean, model):
            artifact = store.find(spec)
            assert artifact is not None
            inputs.append(artifact.manifest.as_input())
        job = Spec(
            asset="one_shot/instruction_pairs", partition="books--0000", code_version=1, recipe=PAIR_SET.hashed(), inputs=tuple(inputs)
        )
        before, start = _resident(), time.process_time()
        write_pairs(store, [job], Execution(), tokenizer_folder, start_engine=lambda *_: InstantEngine(made))
        seconds = time.process_time() - start
        artifact = store.find(job)
        assert artifact is not None
        height = sum(pl.scan_parquet(path).select(pl.len()).collect().item() for path in artifact.tables())
    return {
        "num_passages": height,
        "microseconds_a_passage": 1e6 * seconds / height,
        "resident_before_mib": before,
        "resident_peak_mib": resident_peak_mib(),
    }


def _small_format(max_tokens: int) -> tuple[Tokenizer, TimedFormat, list[Passage]]:
    data = texts.shared_data()
    tokenizer = texts.learn_tokenizer(data, chains_against_rounds.VOCAB_SIZE)
    writer_format = TimedFormat(tokenizer)
    return tokenizer, writer_format, texts.passages(data, writer_format, number=2000, max_tokens=max_tokens)


def _resident() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


def main() -> None:
    """Measure what the arguments name, print, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", default=["engine", "scheduler", "memory"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--passages", type=int, default=600, help="of the real engine")
    parser.add_argument("--out", type=Path, default=None)
    arguments = parser.parse_args()
    os.environ["VLLM_LOGGING_LEVEL"] = "ERROR"
    result: dict[str, Any] = {}
    if "scheduler" in arguments.parts:
        result["scheduler"] = [own_cost(100_000, _SHORT), own_cost(5_000, PAIR_SET.passage_tokens)]
        print(*result["scheduler"], sep="\n", flush=True)
    if "memory" in arguments.parts:
        with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
            result["memory"] = pool.map(memory, [10_000, 100_000], chunksize=1)
        print(*result["memory"], sep="\n", flush=True)
    if "engine" in arguments.parts:
        result["engine"] = against_generate(arguments.repeats, arguments.passages)
        print({name: value for name, value in result["engine"].items() if name != "rows"}, flush=True)
    if arguments.out:
        arguments.out.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
