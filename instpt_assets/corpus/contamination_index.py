"""Writing the index of evaluation examples that `contamination.ContaminationIndex` reads.

What of an example is evidence that a text holds it:

- its n-grams, except those of its task's prompt template: an n-gram that stands between differing lines of the task more than
  `MAX_SETTINGS` times, or in more than `MAX_EXAMPLES` examples. (A passage asked about five times is the same lines each time.)
- a line of at least `shortest` and fewer than n words (a short question), if it is whole, and no such template;
- a whole example of at least `shortest` and fewer than n words;
- an example that has none of these: its rarest n-gram, where all of the example stands around it.

An example of fewer than `shortest` words cannot be told from chance and is listed as skipped.
"""

from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from instpt_assets.corpus.contamination import EXAMPLES, as_places
from instpt_assets.corpus.hashed_words import Block, Hashes, Places, mixed, normalized, span_hashes, split_words
from instpt_assets.corpus.tables import TableWriter

MAX_SETTINGS = 3
"""An n-gram that stands in more settings of its task (between differing lines) is its template or plain language."""
MAX_EXAMPLES = 50
"""An n-gram that stands in more examples of its task, whatever is around it, is its template."""
_BATCH_ROWS = 1000

Entries = npt.NDArray[np.uint64]
"""Hashes, and places below them."""


class EvaluationExample(NamedTuple):
    """A text that an evaluation asks with; an example that is asked in several ways has several."""

    task: str
    example_id: str
    text: str
    """Its parts (question, context, options, …) as lines."""


class _Spans(NamedTuple):
    """Spans of words of one length, as arrays: what could be evidence."""

    length: int
    hashes: Hashes
    settings: Hashes
    rows: Places
    offsets: Places

    def chosen(self, which: npt.NDArray[Any]) -> "_Spans":
        return _Spans(self.length, self.hashes[which], self.settings[which], self.rows[which], self.offsets[which])

    def entries(self, *, whole: bool) -> Entries:
        return np.stack([self.hashes, as_places(self.rows, self.offsets, whole=whole)])


def write_index(examples: Iterable[EvaluationExample], *, ngram_words: int, shortest: int, out: Path) -> dict[str, Any]:
    """Write `data-*.parquet`, `skipped.parquet` (both `EXAMPLES`) and `ngrams-<L>.npy`.

    Args:
        examples: those of a task, and of an example, one after another.
        ngram_words: n.
        shortest: fewest words of what is compared whole, at most n.
        out: an existing folder.

    Returns:
        num_examples, num_skipped (too short to be compared), num_ngrams, and by task: num_examples, num_skipped, num_templates (n-grams left
        out), num_whole (examples that count as a whole only).
    """
    tasks: dict[str, dict[str, int]] = {}
    found: dict[int, list[Entries]] = {ngram_words: [np.zeros((2, 0), np.uint64)]}
    with TableWriter(out, "data", EXAMPLES) as table, TableWriter(out, "skipped.parquet", EXAMPLES) as skipped:
        for task, own in groupby(examples, key=lambda example: example.task):
            if task in tasks:
                raise ValueError(f"examples of task '{task}' stand apart: give those of a task one after another")
            given = list(dict.fromkeys(own))
            compared = [example for example in given if len(split_words(example.text)) >= shortest]
            ids = {example.example_id for example in compared}
            left_out = [example for example in given if example.example_id not in ids]
            entries, counts = _task_entries(compared, ngram_words, shortest, first_row=table.num_rows)
            for length, part in entries:
                found.setdefault(length, []).append(part)
            for target, rows in ((table, compared), (skipped, left_out)):
                for row in rows:
                    target.write(row._asdict())
            num_skipped = len({example.example_id for example in left_out})
            tasks[task] = {"num_examples": len(ids) + num_skipped, "num_skipped": num_skipped, **counts}
    num_ngrams = 0
    for length, parts in sorted(found.items()):
        merged = _merged(np.concatenate(parts, axis=1))
        num_ngrams += merged.shape[1]
        np.save(out / f"ngrams-{length}.npy", merged)
    return {
        "num_examples": sum(counts["num_examples"] for counts in tasks.values()),
        "num_skipped": sum(counts["num_skipped"] for counts in tasks.values()),
        "num_ngrams": num_ngrams,
        "tasks": tasks,
    }


def _task_entries(
    examples: Sequence[EvaluationExample], ngram_words: int, shortest: int, *, first_row: int
) -> tuple[list[tuple[int, Entries]], dict[str, int]]:
    """The index entries of a task's rows, by length of the n-gram, and counts of what is no evidence."""
    numbers = {example_id: number for number, example_id in enumerate(dict.fromkeys(example.example_id for example in examples))}
    example_of = np.array([numbers[example.example_id] for example in examples], np.int64)
    ngrams: list[_Spans] = []
    short_lines: dict[int, list[_Spans]] = {}
    entries: list[tuple[int, Entries]] = []
    has_evidence = np.zeros(len(numbers), np.bool_)
    for first in range(0, len(examples), _BATCH_ROWS):
        block = Block([normalized(example.text) for example in examples[first : first + _BATCH_ROWS]], first)
        rows = np.arange(len(block.bounds) - 1)
        sizes = np.diff(block.bounds)
        short = rows[sizes < ngram_words]
        for length in np.unique(sizes[short]).tolist():
            own = _spans(block, block.bounds[short[sizes[short] == length]], length)
            entries.append((length, _stored(own, first_row).entries(whole=False)))
            has_evidence[example_of[own.rows]] = True
        ngrams.append(_spans(block, _ngram_starts(block, ngram_words), ngram_words))
        line_sizes = np.diff(block.line_bounds)
        for length in range(shortest, ngram_words):
            short_lines.setdefault(length, []).append(_spans(block, block.line_bounds[:-1][line_sizes == length], length))
    num_templates = 0
    for length, parts in [(ngram_words, ngrams), *short_lines.items()]:
        spans = _joined(length, parts)
        template = _in_templates(spans, example_of)
        num_templates += len(np.unique(spans.hashes[template]))
        kept = spans.chosen(~template)
        has_evidence[example_of[kept.rows]] = True
        entries.append((length, _stored(kept, first_row).entries(whole=False)))
    without = np.flatnonzero(~has_evidence)
    whole = _rarest(_joined(ngram_words, ngrams), without, example_of)
    entries.append((ngram_words, _stored(whole, first_row).entries(whole=True)))
    return entries, {"num_templates": num_templates, "num_whole": len(without)}


def _ngram_starts(block: Block, length: int) -> Places:
    """Words from which `length` words stand in the same row."""
    starts = np.arange(max(0, len(block.words) - length + 1))
    return starts[block.owners[starts] == block.owners[starts + length - 1]]


def _spans(block: Block, starts: Places, length: int) -> _Spans:
    """The spans of `length` words from these words on; a setting is the pair of lines in which a span begins and ends."""
    lines = mixed(span_hashes(block.words, block.line_bounds[:-1], block.line_bounds[1:]))
    settings = lines[block.lines[starts]] * np.uint64(3) + lines[block.lines[starts + length - 1]]
    owners = block.owners[starts]
    hashes = span_hashes(block.words, starts, starts + length)
    return _Spans(length, hashes, settings, owners + block.first, starts - block.bounds[owners])


def _joined(length: int, parts: Sequence[_Spans]) -> _Spans:
    def column(values: Sequence[npt.NDArray[Any]], kind: type) -> npt.NDArray[Any]:
        return np.concatenate([np.zeros(0, kind), *values])

    return _Spans(
        length,
        column([part.hashes for part in parts], np.uint64),
        column([part.settings for part in parts], np.uint64),
        column([part.rows for part in parts], np.int64),
        column([part.offsets for part in parts], np.int64),
    )


def _stored(spans: _Spans, first_row: int) -> _Spans:
    return spans._replace(rows=spans.rows + first_row)


def _in_templates(spans: _Spans, example_of: Places) -> npt.NDArray[np.bool_]:
    """Which spans belong to the task's template, as the module says."""
    _, kinds = np.unique(spans.hashes, return_inverse=True)
    settings = _num_distinct(kinds, np.unique(spans.settings, return_inverse=True)[1])
    examples = _num_distinct(kinds, example_of[spans.rows])
    return ((settings > MAX_SETTINGS) | (examples > MAX_EXAMPLES))[kinds]


def _num_distinct(kinds: Places, values: Places) -> Places:
    """How many distinct values each kind has."""
    num_values = int(values.max(initial=0)) + 1
    pairs = np.unique(kinds * num_values + values)
    return np.bincount(pairs // num_values, minlength=int(kinds.max(initial=-1)) + 1)


def _rarest(spans: _Spans, examples: Places, example_of: Places) -> _Spans:
    """For each of these examples its n-gram that stands fewest times in the task."""
    _, kinds, counts = np.unique(spans.hashes, return_inverse=True, return_counts=True)
    owner = example_of[spans.rows]
    order = np.lexsort((counts[kinds], owner))
    order = order[np.isin(owner[order], examples)]
    _, first = np.unique(owner[order], return_index=True)
    return spans.chosen(order[first])


def _merged(entries: Entries) -> Entries:
    """Sorted by hash; of equal hashes one place that is evidence by itself, or else all."""
    hashes, places = entries
    entries = entries[:, np.lexsort((places, places & np.uint64(1), hashes))]
    hashes, places = entries
    _, first, kinds = np.unique(hashes, return_index=True, return_inverse=True)
    only_whole = (places[first] & np.uint64(1)).astype(np.bool_)
    keep = only_whole[kinds]
    keep[first] = True
    return entries[:, keep]
