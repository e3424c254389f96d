"""The tuning collection: contexts with instruction-response pairs, from task sets and from documentation by rules.

Task sets are JSON Lines with `context` and `pairs` [{question, answer, options, rationale}]. Documentation (`pydoc://…`) is cut into passages
like those of synthesis, and `questions` makes their pairs. At most `max_examples` contexts a set stay, those with the most pairs (PAPER.md
section 1); what shares words with an evaluation example is no example. The split of a context depends on nothing but its own text (documentation: on its object's name).
"""

import hashlib
import heapq
import json
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from time import monotonic
from typing import Any

import pyarrow as pa

from instpt_assets.corpus.contamination import CONTAMINATED, ContaminationIndex
from instpt_assets.corpus.documentation import read_documentation
from instpt_assets.corpus.normalizing import normalize, replace_surrogates
from instpt_assets.corpus.passages import cut_passages
from instpt_assets.corpus.records import MAX_REJECTED_CHARACTERS, Record, Rejection, read_records
from instpt_assets.corpus.select import selected
from instpt_assets.corpus.shards import list_shards
from instpt_assets.corpus.tables import TableWriter
from instpt_assets.recipe.corpora import Corpus
from instpt_assets.recipe.synthesis import Tuning, TuningSource
from instpt_assets.synthesis.prompt import RESERVED, Pair
from instpt_assets.synthesis.questions import ask

PAIR = pa.struct([("instruction", pa.string()), ("response", pa.string()), ("options", pa.list_(pa.string())), ("reasoning", pa.string())])
EXAMPLES = pa.schema(
    [
        ("example_id", pa.string()),
        ("dataset", pa.string()),
        ("split", pa.string()),
        ("context", pa.string()),
        ("pairs", pa.list_(PAIR)),
        ("license", pa.string()),
    ]
)
REJECTED = pa.schema([("dataset", pa.string()), ("record", pa.string()), ("reason", pa.string()), ("position", pa.int64())])

SHORTEST_PASSAGE, LONGEST_PASSAGE = 30, 110
"""Words of a passage of documentation: its longest length is drawn between these."""
_START_WORDS, _NUM_STARTS = 3, 20
_COMPARED_AT_ONCE = 256

MIN_DERIVED_PAIRS = 2
"""A passage of documentation with fewer pairs is no example."""


@dataclass(frozen=True)
class _Example:
    id: str
    context: str
    pairs: tuple[Pair, ...]
    license: str | None
    group: str
    """What decides the split."""
    position: int
    """Of its record, or its documented object, in the source."""


def build_tuning_collection(tuning: Tuning, *, out: Path, contamination: ContaminationIndex | None = None) -> dict[str, Any]:
    """Write the tuning collection: `data-*.parquet` (columns of `EXAMPLES`, split `train` or `held_out`) and `rejected.parquet`.

    Args:
        tuning: Its sources.
        out: An existing folder.
        contamination: The index of evaluation examples, if nothing of them may be learned.

    Returns:
        num_examples, num_held_out, num_pairs, num_rejected, rejected_by_reason, seconds, question_starts (how many instructions begin with
        the same three words, the commonest), and by dataset how many examples and pairs there are and how many examples were left out
        beyond `max_examples`.

    Raises:
        SourceError: a source cannot be read.
        ValueError: a source holds no example.
    """
    started = monotonic()
    reasons: Counter[str] = Counter()
    datasets: dict[str, dict[str, int]] = {}
    question_starts: Counter[str] = Counter()
    held_out = 0
    with TableWriter(out, "data", EXAMPLES) as table, TableWriter(out, "rejected.parquet", REJECTED) as rejected:
        for dataset, source in sorted(tuning.sources.items()):
            best = _Best(source.max_examples)
            for item in _without_overlaps(_examples(dataset, source, tuning.seed), contamination):
                if isinstance(item, Rejection):
                    reasons[item.reason.split(":")[0]] += 1
                    rejected.write({"dataset": dataset, "record": item.record, "reason": item.reason, "position": item.position})
                else:
                    best.add(item)
            kept = best.in_order()
            if not kept:
                raise ValueError(f"tuning set '{dataset}' ({source.source}) holds no context with pairs; its rejected records say why")
            for example in kept:
                is_held_out = selected(f"held out/{example.group}", tuning.held_out_fraction)
                held_out += is_held_out
                question_starts.update(" ".join(pair.instruction.split()[:_START_WORDS]) for pair in example.pairs)
                table.write(
                    {
                        "example_id": f"{dataset}/{example.id}",
                        "dataset": dataset,
                        "split": "held_out" if is_held_out else "train",
                        "context": example.context,
                        "pairs": [pair.to_struct() for pair in example.pairs],
                        "license": example.license,
                    }
                )
            datasets[dataset] = {
                "num_examples": len(kept),
                "num_pairs": sum(len(e.pairs) for e in kept),
                "num_left_out": best.num_added - len(kept),
            }
    return {
        "num_examples": table.num_rows,
        "num_held_out": held_out,
        "num_pairs": sum(counts["num_pairs"] for counts in datasets.values()),
        "num_rejected": rejected.num_rows,
        "rejected_by_reason": dict(sorted(reasons.items())),
        "datasets": datasets,
        "question_starts": dict(question_starts.most_common(_NUM_STARTS)),
        "seconds": round(monotonic() - started, 2),
    }


class _Best:
    """The `num_examples` with the most pairs of all that are added; of equals the earlier one stays."""

    def __init__(self, num_examples: int) -> None:
        self.num_added = 0
        self._num_examples = num_examples
        self._heap: list[tuple[int, int, _Example]] = []

    def add(self, example: _Example) -> None:
        entry = (len(example.pairs), -self.num_added, example)
        self.num_added += 1
        if len(self._heap) < self._num_examples:
            heapq.heappush(self._heap, entry)
        else:
            heapq.heappushpop(self._heap, entry)

    def in_order(self) -> list[_Example]:
        return [example for _, _, example in sorted(self._heap, key=lambda entry: -entry[1])]


def _examples(dataset: str, source: TuningSource, seed: int) -> Iterator[_Example | Rejection]:
    """The examples of a source, each context once."""
    seen: set[bytes] = set()
    read = _documentation(source.source, seed) if source.source.startswith("pydoc://") else _task_set(dataset, source.source)
    for item in read:
        if isinstance(item, _Example):
            digest = hashlib.blake2b(item.context.encode(), digest_size=16).digest()
            if digest in seen:
                continue
            seen.add(digest)
        yield item


def _without_overlaps(items: Iterable[_Example | Rejection], contamination: ContaminationIndex | None) -> Iterator[_Example | Rejection]:
    """The items, an example that shares words with the evaluation as a rejection."""
    if contamination is None:
        yield from items
        return
    iterator = iter(items)
    while batch := list(islice(iterator, _COMPARED_AT_ONCE)):
        examples = [item for item in batch if isinstance(item, _Example)]
        overlaps = iter(contamination.find([_compared_text(example) for example in examples]))
        for item in batch:
            overlap = next(overlaps) if isinstance(item, _Example) else None
            if overlap is None or isinstance(item, Rejection):
                yield item
            else:
                reason = f"{CONTAMINATED}: {overlap.task} {overlap.example_id}: {overlap.words}"
                yield Rejection(_compared_text(item)[:MAX_REJECTED_CHARACTERS], reason, item.position)


def _compared_text(example: _Example) -> str:
    pairs = (text for pair in example.pairs for text in (pair.instruction, *pair.options, pair.reasoning or "", pair.response))
    return "\n".join((example.context, *pairs))


def _documentation(url: str, seed: int) -> Iterator[_Example]:
    """Passages of documentation, of lengths drawn by the object's name, with the pairs that the rules find."""
    for place, document in enumerate(read_documentation(url)):
        rng = random.Random(f"{seed}/{document.name}")
        longest = rng.randint(SHORTEST_PASSAGE, LONGEST_PASSAGE)
        for position, passage in enumerate(cut_passages(normalize(document.text), _count_words, longest)):
            pairs = [pair for pair in ask(passage, rng) if _problem(pair) is None]
            if len(pairs) >= MIN_DERIVED_PAIRS:
                yield _Example(f"{document.name}/{position:04d}", passage, tuple(pairs), None, document.name, place)


def _count_words(texts: Sequence[str]) -> list[int]:
    return [len(text.split()) for text in texts]


def _task_set(dataset: str, url: str) -> Iterator[_Example | Rejection]:
    corpus = Corpus(source=url, text_field="context")
    for shard in list_shards(dataset, corpus):
        for item in read_records(shard, corpus):
            yield _task_example(item, shard.slug) if isinstance(item, Record) else item


def _task_example(record: Record, slug: str) -> _Example | Rejection:
    """A record of a task set as an example, if its context and pairs can be used."""

    def reject(reason: str) -> Rejection:
        shown = json.dumps({"context": record.text, **record.fields}, ensure_ascii=False)
        return Rejection(replace_surrogates(shown[:MAX_REJECTED_CHARACTERS]), reason, record.position)

    context, given = normalize(record.text), record.fields.get("pairs")
    if not context:
        return reject("empty context")
    if not isinstance(given, list) or not given:
        return reject("no pairs")
    pairs: list[Pair] = []
    for number, value in enumerate(given):
        pair = _read_pair(value)
        problem = pair if isinstance(pair, str) else _problem(pair)
        if problem is not None:
            return reject(f"{problem}: pair {number}")
        if isinstance(pair, Pair) and pair.instruction.casefold() not in {other.instruction.casefold() for other in pairs}:
            pairs.append(pair)
    license = record.fields.get("license")
    return _Example(
        f"{slug}-{record.position:08d}", context, tuple(pairs), license if isinstance(license, str) else None, context, record.position
    )


def _read_pair(value: Any) -> Pair | str:
    """A pair of a task set's record, or what is wrong with it."""
    if not isinstance(value, dict):
        return "a pair is not a JSON object"
    question, answer, options, rationale = (value.get(key) for key in ("question", "answer", "options", "rationale"))
    if not isinstance(question, str) or not isinstance(answer, str):
        return "question or answer is not a string"
    if not isinstance(options, list | None) or not all(isinstance(option, str) for option in options or ()):
        return "options are not a list of strings"
    if not isinstance(rationale, str | None):
        return "rationale is not a string"
    reasoning = normalize(rationale).strip() if rationale else ""
    return Pair(
        normalize(question).strip(),
        normalize(answer).strip(),
        tuple(normalize(option).strip() for option in options or ()),
        reasoning or None,
    )


def _problem(pair: Pair) -> str | None:
    """Why a pair cannot be used, if so."""
    if not pair.instruction or not pair.response:
        return "empty question or answer"
    texts = (pair.instruction, pair.response, *pair.options, pair.reasoning or "")
    return "a marker of the prompt format in a pair" if any(marker in text for marker in RESERVED for text in texts) else None
