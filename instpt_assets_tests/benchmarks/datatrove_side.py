"""datatrove's side of `corpus_against_datatrove`: runs under a Python of its own that has datatrove, and prints what each step took as JSON.

Its English word splitter is spaCy's blank `en`, which downloads nothing; `--words whitespace` gives it `str.split`, whose words are ours.
Its filters judge every document but drop none, so that each step sees all of the text, as ours do.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from datatrove.executor import LocalPipelineExecutor  # type: ignore[import-not-found]
from datatrove.pipeline.base import PipelineStep  # type: ignore[import-not-found]
from datatrove.pipeline.dedup import MinhashDedupBuckets, MinhashDedupCluster, MinhashDedupSignature  # type: ignore[import-not-found]
from datatrove.pipeline.dedup.minhash import MinhashConfig  # type: ignore[import-not-found]
from datatrove.pipeline.filters import GopherQualityFilter, GopherRepetitionFilter  # type: ignore[import-not-found]
from datatrove.pipeline.readers import JsonlReader  # type: ignore[import-not-found]
from datatrove.utils.typeshelper import Languages  # type: ignore[import-not-found]
from datatrove.utils.word_tokenizers import WordTokenizer  # type: ignore[import-not-found]

SECONDS: dict[str, float] = {}
"""CPU seconds until a step's last document, by step: executors copy their steps, so these are kept here."""
DOCUMENTS: dict[str, int] = {}
"""Documents that came through a step."""
DROPPED: set[str] = set()
"""Documents that a filter would have dropped."""


class SpaceSplitter(WordTokenizer):
    """Words are what stands between white space."""

    def word_tokenize(self, text: str) -> list[str]:
        return text.split()

    def sent_tokenize(self, text: str) -> list[str]:
        raise NotImplementedError("no step of the benchmark asks for sentences")

    def span_tokenize(self, text: str) -> list[tuple[int, int]]:
        raise NotImplementedError("no step of the benchmark asks for sentences")


class Quality(GopherQualityFilter):
    """Judges, and drops nothing."""

    def filter(self, doc: Any) -> bool:
        if super().filter(doc) is not True:
            DROPPED.add(doc.id)
        return True


class Repetition(GopherRepetitionFilter):
    """Judges, and drops nothing."""

    def filter(self, doc: Any) -> bool:
        if super().filter(doc) is not True:
            DROPPED.add(doc.id)
        return True


class Clock(PipelineStep):
    """Passes documents on, telling how many there were and the CPU time of all steps before it."""

    name = "clock"

    def __init__(self, behind: str) -> None:
        super().__init__()
        self.behind = behind

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> Any:
        iterator = iter(data)
        SECONDS[self.behind], DOCUMENTS[self.behind] = 0.0, 0
        while True:
            start = time.process_time()
            document = next(iterator, None)
            SECONDS[self.behind] += time.process_time() - start
            if document is None:
                return
            DOCUMENTS[self.behind] += 1
            yield document


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="of .jsonl files")
    parser.add_argument("--words", choices=("own", "whitespace"), default="own")
    parser.add_argument("--shingle-words", type=int, default=5)
    parser.add_argument("--permutations", type=int, default=128)
    arguments = parser.parse_args()
    language = Languages.english if arguments.words == "own" else SpaceSplitter()
    config = MinhashConfig(n_grams=arguments.shingle_words, num_buckets=arguments.permutations // 8, hashes_per_bucket=8)
    with TemporaryDirectory() as folder:

        def run(*steps: PipelineStep) -> float:
            start = time.process_time()
            logs = Path(folder, f"logs{start}")
            LocalPipelineExecutor(pipeline=list(steps), tasks=1, workers=1, logging_dir=str(logs)).run()
            return time.process_time() - start

        signatures = MinhashDedupSignature(output_folder=f"{folder}/signatures", config=config, language=language)
        signatures.word_tokenizer.word_tokenize("Loads what it needs.")
        wall = time.monotonic()
        total = run(
            JsonlReader(str(arguments.folder), glob_pattern="*.jsonl"),
            Clock("read"),
            Quality(language=language),
            Clock("quality"),
            Repetition(language=language),
            Clock("repetition"),
            signatures,
        )
        wall = time.monotonic() - wall
        found = 0.0
        for bucket in range(config.num_buckets):
            buckets = MinhashDedupBuckets(f"{folder}/signatures", f"{folder}/buckets", config=config)
            start = time.process_time()
            buckets.run(None, bucket, config.num_buckets)
            found += time.process_time() - start
        found += run(MinhashDedupCluster(f"{folder}/buckets", f"{folder}/removed", config=config))
    seconds = {
        "read": SECONDS["read"],
        "quality": SECONDS["quality"] - SECONDS["read"],
        "repetition": SECONDS["repetition"] - SECONDS["quality"],
        "signatures": total - SECONDS["repetition"],
        "duplicates": found,
    }
    documents = {"read": DOCUMENTS["read"], "kept": DOCUMENTS["repetition"] - len(DROPPED)}
    json.dump({"seconds": seconds, "wall_seconds": wall, "documents": documents}, sys.stdout)


if __name__ == "__main__":
    main()
