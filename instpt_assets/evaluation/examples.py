"""The exact examples that a recipe evaluates on, as texts: what `corpus/contamination` compares documents and pairs with.

Of lm-eval's tasks all test examples (or validation examples, where a task is scored on those), whatever limit the scoring has; of each its
prompt with choices and target as lm-eval writes them, and the strings of its record as they stand in the data set. `lm_eval` is imported
inside the functions that `harness` has: only workers list examples.
"""

import json
from codecs import BOM_UTF8
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from string import ascii_uppercase
from typing import Any, NamedTuple

from instpt_assets.corpus.contamination_index import EvaluationExample, write_index
from instpt_assets.corpus.files import SourceError
from instpt_assets.corpus.parts import is_blank
from instpt_assets.corpus.raw_records import read_raw, separator_of
from instpt_assets.corpus.shards import Shard, list_shards
from instpt_assets.evaluation.bits_per_byte import TASK
from instpt_assets.evaluation.documentation_tasks import LocalTask
from instpt_assets.evaluation.harness import PreparedTasks, prepare
from instpt_assets.recipe.corpora import Corpus
from instpt_assets.recipe.decontamination import Decontamination, EvaluationSource
from instpt_assets.recipe.evaluation import Evaluation
from instpt_assets.store.preview import markdown_cell, markdown_table, preview_table

PAGE = "examples.md"
HELD_OUT = "held_out"
"""Under this name the examples of held-out documentation are counted."""
BOOKKEEPING = frozenset("id task dataset subject license source split url".split())
"""Fields of a record that hold no text of an example."""


class Asked(NamedTuple):
    """The examples of one task."""

    name: str
    """What the recipe calls it: a task or group of lm-eval, `held_out`, or a source."""
    task: str
    """The task itself: of a group one of its members."""
    examples: Iterable[EvaluationExample]


def write_examples(
    evaluation: Evaluation, decontamination: Decontamination, *, out: Path, folder: Path, progress: Callable[[Mapping[str, Any]], None]
) -> dict[str, Any]:
    """Write the index of all examples; see `write_index` for its files.

    Args:
        evaluation: the recipe's part.
        decontamination: n, and further sources.
        out: an existing folder, which also gets a page.
        folder: an existing folder for task files.
        progress: called for each task.

    Returns:
        what `write_index` returns, and compared: how many examples of each task, group and source of the recipe are compared.

    Raises:
        ValueError: a task is unknown or its data set cannot be had, or a source cannot be read or holds no text.
    """
    tasks_of: dict[str, list[str]] = {}

    def examples() -> Iterator[EvaluationExample]:
        listed: set[str] = set()
        for asked in chain(_of_tasks(prepare(evaluation, folder)), source_examples(decontamination.sources)):
            tasks_of.setdefault(asked.name, []).append(asked.task)
            if asked.name in decontamination.sources and asked.task in listed:
                raise ValueError(
                    f"decontamination.sources.{asked.name}: a task that is evaluated on has this name: give the source another one"
                )
            if asked.task not in listed:
                listed.add(asked.task)
                progress({"step": "examples listed", "task": asked.task})
                yield from asked.examples

    statistics = write_index(examples(), ngram_words=decontamination.ngram_words, shortest=decontamination.min_words, out=out)
    counts = {task: own["num_examples"] - own["num_skipped"] for task, own in statistics["tasks"].items()}
    (out / PAGE).write_text(_page(statistics["tasks"], decontamination, out), encoding="utf-8")
    return {**statistics, "compared": {name: sum(counts.get(task, 0) for task in tasks) for name, tasks in tasks_of.items()}}


def _page(tasks: Mapping[str, Mapping[str, int]], decontamination: Decontamination, out: Path) -> str:
    """For people: how many examples of each task are compared, and what is not."""
    n, shortest = decontamination.ngram_words, decontamination.min_words
    counts = ("num_examples", "num_skipped", "num_templates", "num_whole")
    lines = [
        f"Texts are compared by {n} words in a row, shorter examples as a whole from {shortest} words on.",
        "",
        *markdown_table(
            ["task", "examples", "too short, not compared", "n-grams of the prompt, left out", "counted as a whole only"],
            ((markdown_cell(task), *(f"{own[name]:,}" for name in counts)) for task, own in tasks.items()),
        ),
    ]
    for title, table in (("First of those compared", "data-00000.parquet"), ("First of those not compared", "skipped.parquet")):
        lines += ["", f"**{title}**", "", preview_table(out / table)]
    return "\n".join(lines) + "\n"


def compared_names(evaluation: Evaluation, decontamination: Decontamination) -> list[str]:
    """Names of everything that examples are compared of: tasks and groups, held-out documentation, further sources."""
    held_out = [HELD_OUT] if evaluation.held_out is not None else []
    return [*held_out, *(task.task for task in evaluation.harness_tasks), *decontamination.sources]


def _of_tasks(tasks: PreparedTasks) -> Iterator[Asked]:
    """What the evaluation asks: tasks built here, held-out texts, tasks of lm-eval."""
    for name, task in sorted(tasks.local.items()):
        yield Asked(HELD_OUT, name, _built(task))
    if tasks.documents:
        yield Asked(HELD_OUT, TASK, (EvaluationExample(TASK, name, text) for name, text in sorted(tasks.documents.items())))
    for shipped in tasks.evaluation.harness_tasks:
        yield from harness_examples(shipped.task, tasks.manager)


def _built(task: LocalTask) -> Iterator[EvaluationExample]:
    for example in task.examples:
        yield EvaluationExample(task.name, str(example["id"]), "\n".join(strings({key: example[key] for key in example if key != "id"})))


def harness_examples(name: str, manager: Any) -> Iterator[Asked]:
    """The examples of a task, or of all members of a group or tag.

    Args:
        name: in lm-eval.
        manager: lm-eval's TaskManager.

    Raises:
        ValueError: its data set cannot be loaded.
    """
    try:
        members = manager.load([name])["tasks"]
    except Exception as error:  # each data set has exceptions of its own
        raise ValueError(
            f"evaluation.harness_tasks: the data set of '{name}' cannot be loaded, so nothing can be compared with its examples: {error}. "
            "Let this machine reach the hub once (its cache then serves)"
        ) from error
    for member, task in sorted(members.items()):
        yield Asked(name, member, _rendered(member, task))


def _rendered(name: str, task: Any) -> Iterator[EvaluationExample]:
    """Each test example in several ways: its record's texts, and prompt, choices and target as lm-eval writes them."""
    multiple_choice = task.OUTPUT_TYPE == "multiple_choice"
    given = set[str]()
    for number, record in enumerate(task.eval_docs):
        example_id = _unique(str(record.get("id", number)), number, given)
        asked = [task.doc_to_text(record), task.doc_to_choice(record) if multiple_choice else [], task.doc_to_target(record)]
        rendered = "\n".join(text for value in asked for text in strings(value))
        for text in (*record_texts(record), rendered):
            yield EvaluationExample(name, example_id, text)


def source_examples(sources: Mapping[str, EvaluationSource]) -> Iterator[Asked]:
    """The examples of sets that lie in files, by name.

    Raises:
        ValueError: one cannot be read, or holds no record.
    """
    for name, source in sources.items():
        yield Asked(name, name, _read_source(name, source))


def _read_source(name: str, source: EvaluationSource) -> Iterator[EvaluationExample]:
    number = 0
    for shard in list_shards(name, Corpus(source=source.source, format=source.format)):
        given = set[str]()
        for record in _records(shard):
            own_id = record.get("id")
            example_id = _unique(str(own_id) if isinstance(own_id, str | int) else str(number), number, given)
            number += 1
            try:
                texts = record_texts(record, source.fields)
            except ValueError as error:
                raise ValueError(f"decontamination.sources.{name}.fields: {error}") from error
            yield from (EvaluationExample(name, f"{shard.slug}/{example_id}", text) for text in texts)
    if number == 0:
        raise ValueError(f"decontamination.sources.{name}: '{source.source}' holds no record")


def _unique(example_id: str, number: int, given: set[str]) -> str:
    """The id, with the record's number where another record has it (one of a group of questions, say): what names one example is found once."""
    own_id = f"{example_id}#{number}" if example_id in given else example_id
    given.add(own_id)
    return own_id


def _records(shard: Shard) -> Iterator[dict[str, Any]]:
    """The records of a file. A bad one is an error: with a hole in it an evaluation set protects from less than it says."""
    assert shard.format is not None, "documentation is refused by the recipe"
    if shard.format.startswith("txt"):
        raise SourceError(f"evaluation examples '{shard.url}': a text file has no records: give JSON Lines or Parquet, or set format")
    for number, raw in enumerate(read_raw(shard.url, shard.format, separator_of(shard.format, None))):
        if isinstance(raw, dict):
            yield raw
        elif not isinstance(raw, bytes):
            raise SourceError(f"evaluation examples '{shard.url}': row {number}: {raw.reason}")
        elif not is_blank(raw, number):
            try:
                record = json.loads(raw.removeprefix(BOM_UTF8))
            except ValueError as error:
                raise SourceError(f"evaluation examples '{shard.url}' cannot be read as {shard.format}: line {number}: {error}") from error
            if not isinstance(record, dict):
                raise SourceError(f"evaluation examples '{shard.url}': line {number} is not a JSON object")
            yield record


def record_texts(record: Mapping[str, Any], fields: Collection[str] | None = None) -> list[str]:
    """The texts of an example's record: all strings in the fields as lines, without and with letters before its options.

    Args:
        record: as in the data set.
        fields: by default all but bookkeeping; a field of one word is mostly a label, so that there is a text without and one with such fields.

    Raises:
        ValueError: the record lacks a field that is named.
    """
    if fields is None:
        taken = {name: value for name, value in record.items() if name not in BOOKKEEPING}
        kept = [[value for value in taken.values() if not _is_word(value)], list(taken.values())]
    else:
        if missing := [name for name in fields if name not in record]:
            raise ValueError(f"a record has no field '{missing[0]}' (it has {', '.join(record)})")
        kept = [[record[name] for name in fields]]
    ways = ((values, lettered) for values in kept for lettered in (False, True))
    return list(
        dict.fromkeys("\n".join(text for value in values for text in strings(value, lettered=lettered)) for values, lettered in ways)
    )


def _is_word(value: Any) -> bool:
    return isinstance(value, str) and len(value.split()) <= 1


def strings(value: Any, *, lettered: bool = False) -> Iterator[str]:
    """All strings in a value, through lists and objects, in order. A list of strings (options, tokens) is one text: an option by itself tells little.

    Args:
        value: any JSON value.
        lettered: write the options of a list one by one, with A, B, … before them.
    """
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from strings(item, lettered=lettered)
    elif isinstance(value, Iterable):
        items = list(value)
        if not all(isinstance(item, str) for item in items):
            for item in items:
                yield from strings(item, lettered=lettered)
        elif lettered and len(items) <= len(ascii_uppercase):
            yield from (f"{letter}. {item}" for letter, item in zip(ascii_uppercase, items, strict=False))
        elif items:
            yield " ".join(items)
