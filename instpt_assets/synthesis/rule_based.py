"""Pairs that rules mine from the passages: no model, nothing generated, the same passage always gives the same pairs.

Passages and chains are made as for a model (`chains`), so that augmented texts differ in their pairs alone; without a tokenizer a passage
counts a token for every four bytes of UTF-8, which is what English text has on average.
"""

import json
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from instpt_assets.augmentation.draws import Draws
from instpt_assets.corpus.select import selected
from instpt_assets.corpus.tables import TableWriter, read_rows
from instpt_assets.recipe.execution import Execution
from instpt_assets.recipe.synthesis import PairSet
from instpt_assets.recipe.writers import RuleBasedWriter, RuleTask
from instpt_assets.synthesis.accounting import RunAccounting
from instpt_assets.synthesis.chain_run import Shot, Status
from instpt_assets.synthesis.chains import Passage, cut_documents, plan_chains, read_documents
from instpt_assets.synthesis.prompt import RESERVED, Pair
from instpt_assets.synthesis.rule_based_found import Found
from instpt_assets.synthesis.rule_based_found import Passage as Source
from instpt_assets.synthesis.rule_based_phrasings import RulePhrasings, load_rule_phrasings
from instpt_assets.synthesis.rule_based_sentences import Prose
from instpt_assets.synthesis.rule_based_tasks import TASKS
from instpt_assets.synthesis.table import SCHEMA, row

BYTES_PER_TOKEN = 4
"""Without a tokenizer a passage counts a token for so many bytes."""
_FIRST = "/00000"
"""What the id of a document's first passage ends in."""


class Mined(NamedTuple):
    """What the rules made of a passage."""

    pairs: tuple[Pair, ...]
    tasks: tuple[RuleTask, ...]
    """The task of each."""
    rejected: tuple[str, ...]
    """A reason for each that could not be used: `marker`."""


def write_rule_based_pairs(tables: Sequence[Path], pair_set: PairSet, *, out: Path) -> dict[str, Any]:
    """Write `instruction_pairs` of a shard by rules; equal inputs give equal bytes, memory stays the same.

    Args:
        tables: the parts of the shard's `clean_corpus`.
        pair_set: its writer says which tasks, the rest how documents are chosen, cut and chained.
        out: an existing folder.

    Returns:
        The statistics of `Accounting`, and pairs_by_task, and passages_per_second.
    """
    accounting = RunAccounting(Execution(), pair_set.writer).shard(None)
    counts, by_task = Counter[str](), Counter[str]()
    start = time.monotonic()
    with TableWriter(out, "data", SCHEMA) as table:
        for passage, chain_id, shot, tasks in _results(tables, pair_set, counts):
            accounting.row(passage, shot)
            by_task.update(tasks)
            table.write(row(passage, chain_id, shot))
    statistics = accounting.statistics(num_chains=counts["chains"], num_short_chains=counts["short_chains"])
    statistics["pairs_by_task"] = {task: by_task[task] for task in TASKS if by_task[task]}
    statistics["passages_per_second"] = round(counts["passages"] / max(time.monotonic() - start, 1e-3), 1)
    return statistics


def mine_text(text: str, pair_set: PairSet, document_id: str = "text") -> Iterator[tuple[Passage, Mined]]:
    """The passages of one text that belongs to no corpus, each with its pairs."""
    for passage in _cut([(document_id, text)], pair_set, fraction=1.0):
        yield passage, mine(passage, None, _writer(pair_set), load_rule_phrasings())


def mine(passage: Passage, title: str | None, writer: RuleBasedWriter, phrasings: RulePhrasings) -> Mined:
    """The pairs of one passage.

    Each task gives at most `max_pairs_per_task`, one after the other, those that are found more rarely first, until there are `max_pairs`; no
    two are made of the same sentence or have the same free response. What is taken, how it is worded and in which order are drawn from the writer's seed and the passage's
    id.

    Args:
        passage: the passage.
        title: of its document, if it has one; taken into account at its first passage alone, where the first line stands in for it.
        writer: which tasks, and how many pairs.
        phrasings: how they are worded.
    """
    prose, draws = Prose(passage.text), Draws(writer.seed, passage.passage_id)
    if not passage.passage_id.endswith(_FIRST):
        title = None
    elif title is None:
        title = prose.headings.get(0) if prose.sentences else None
    source = Source(prose, title)
    waiting = [(task, find(source, draws)) for task, find in TASKS.items() if task in writer.tasks]
    taken, rejected = dict[str, tuple[RuleTask, Pair]](), list[str]()
    used, responses = set[int](), set[str]()
    for turn in range(writer.max_pairs_per_task):
        for task, findings in waiting:
            if len(taken) == writer.max_pairs:
                break
            for found in findings:
                if not used.isdisjoint(found.sentences):
                    continue
                pair = _worded(found, phrasings, draws, f"{task}/{turn}")
                if pair is None or pair.instruction in taken or (not pair.options and pair.response in responses):
                    continue
                if _has_marker(pair):
                    rejected.append("marker")
                    continue
                taken[pair.instruction] = task, pair
                used.update(found.sentences)
                responses.add(pair.response)
                break
    order = draws.order("pairs", len(taken))
    chosen = list(taken.values())
    return Mined(tuple(chosen[place][1] for place in order), tuple(chosen[place][0] for place in order), tuple(rejected))


def _has_marker(pair: Pair) -> bool:
    parts = (pair.instruction, pair.response, *pair.options)
    return any("<" in part and any(marker in part for marker in RESERVED) for part in parts)


def _worded(found: Found, phrasings: RulePhrasings, draws: Draws, name: str) -> Pair | None:
    """The pair in a drawn phrasing; None if its answer stands in its own instruction."""
    templates = phrasings.instructions[found.family]
    instruction = templates[draws.pick(f"phrasing/{name}", len(templates))].format(**found.fields)
    response, others = found.response, found.others
    if found.relation is not None:
        options = phrasings.relation_options[draws.pick(f"options/{name}", len(phrasings.relation_options))]
        response = options[found.relation]
        others = tuple(option for option in options if option != response)
    elif response.casefold().rstrip(".") in instruction.casefold():
        return None
    if not others:
        return Pair(instruction, response)
    given = (response, *others)
    return Pair(instruction, response, tuple(given[place] for place in draws.order(f"order/{name}", len(given))))


def _results(
    tables: Sequence[Path], pair_set: PairSet, counts: Counter[str]
) -> Iterator[tuple[Passage, str | None, Shot | None, tuple[RuleTask, ...]]]:
    """Each passage with its chain and its pairs; None where it was not selected. Counts chains, short ones, and selected passages."""
    writer, phrasings = _writer(pair_set), load_rule_phrasings()
    # The documents are read twice, the chosen ones for their chains: nothing need be kept between the two, however far apart they lie.
    chosen = ((name, text) for name, text in read_documents(tables) if selected(name, pair_set.fraction))
    chained = groupby(_chained(_cut(chosen, pair_set), pair_set.shots, counts), key=lambda item: item[0].document_id)
    segment = shot = 0
    for document in read_rows(tables, ("document_id", "text", "metadata")):
        name = document["document_id"]
        if not selected(name, pair_set.fraction):
            for passage in _cut([(name, document["text"])], pair_set):
                yield passage, None, None, ()
            continue
        title = _title(document["metadata"])
        for passage, chain_id, begins in next(chained)[1]:
            if begins:
                segment = shot = 0
            counts["passages"] += 1
            mined = mine(passage, title, writer, phrasings)
            status: Status = "ok" if mined.pairs else "no_valid_pair"
            yield passage, chain_id, Shot(segment, shot, status, mined.pairs, mined.rejected, "", 0, 0, 0), mined.tasks
            # As a model's chain does, it begins anew behind a passage without pairs.
            segment, shot = (segment, shot + 1) if mined.pairs else (segment + 1, 0)


def _chained(passages: Iterable[Passage], shots: int, counts: Counter[str]) -> Iterator[tuple[Passage, str, bool]]:
    """Every passage with its chain's id, and whether the chain begins with it."""
    for chain in plan_chains(passages, shots=shots, context=""):
        counts["chains"] += 1
        counts["short_chains"] += len(chain.passages) < shots
        for number, passage in enumerate(chain.passages):
            yield passage, chain.chain_id, number == 0


def _cut(documents: Iterable[tuple[str, str]], pair_set: PairSet, fraction: float | None = None) -> Iterator[Passage]:
    chosen = pair_set.fraction if fraction is None else fraction
    return cut_documents(documents, count_tokens=_count_tokens, max_tokens=pair_set.passage_tokens, fraction=chosen)


def _count_tokens(texts: Sequence[str]) -> list[int]:
    return [-(-len(text.encode()) // BYTES_PER_TOKEN) for text in texts]


def _title(metadata: str | None) -> str | None:
    """The document's title, None if its metadata have none."""
    title = json.loads(metadata or "{}").get("title")
    return " ".join(title.split()) or None if isinstance(title, str) else None


def _writer(pair_set: PairSet) -> RuleBasedWriter:
    assert isinstance(pair_set.writer, RuleBasedWriter)
    return pair_set.writer
