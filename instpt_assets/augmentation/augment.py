"""The augmented corpus: chains of passages with pairs become texts, one shard at a time.

A text is what the synthesizer saw as one sequence: consecutive shots of a chain that have pairs. A passage without a pair breaks the
chain, whether none was written or none may stand in a text (`screening`), and consecutive ones of a document stay one raw text, verbatim.
What the pair set did not select is left out. Pairs that may not stand in a text are kept beside it, in `dropped.parquet`, with the reason.
"""

import json
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from instpt_assets.augmentation.layouts import LaidOut, Pair, Shot, lay_out
from instpt_assets.augmentation.screening import Dropped, screen
from instpt_assets.augmentation.tables import Passage, batches, column, read_passages
from instpt_assets.corpus.contamination import ContaminationIndex
from instpt_assets.corpus.tables import TableWriter
from instpt_assets.recipe.synthesis import Layouts

SCHEMA = pa.schema(
    [
        ("text_id", pa.string()),
        ("text", pa.string()),
        ("passage_ids", pa.list_(pa.string())),
        ("num_pairs", pa.int64()),
        ("layout", pa.string()),
        ("license", pa.list_(pa.string())),
        ("metadata", pa.list_(pa.string())),
    ]
)
"""Columns of `augmented_corpus`; `passage_ids`, `license` and `metadata` have one entry a passage, in the text's order."""

DROPPED = pa.schema(
    [
        ("passage_id", pa.string()),
        ("instruction", pa.string()),
        ("response", pa.string()),
        ("options", pa.list_(pa.string())),
        ("reasoning", pa.string()),
        ("reason", pa.string()),
        ("task", pa.string()),
        ("example_id", pa.string()),
        ("words", pa.string()),
    ]
)
"""Columns of `dropped.parquet`; `task`, `example_id` and `words` say with which evaluation example a contaminated pair overlaps, and where."""

_GROUP_ROWS, _GROUP_CHARACTERS = 4096, 1 << 23


def augment(
    pairs_tables: Sequence[Path],
    clean_tables: Sequence[Path],
    layouts: Layouts,
    *,
    pair_set: str,
    out: Path,
    contamination: ContaminationIndex | None = None,
) -> dict[str, Any]:
    """Write the augmented texts of one shard to `out/data-00000.parquet`; equal inputs give equal bytes.

    Args:
        pairs_tables: `instruction_pairs` of the shard, its passages in the documents' order.
        clean_tables: `clean_corpus` of the shard, for licences and metadata.
        layouts: probabilities and seed of the layouts.
        pair_set: its name begins every `text_id`, so that they are unique over all pair sets.
        out: an existing folder.
        contamination: of the evaluation examples that no pair may hold; by default none is looked for.

    Returns:
        num_rows (texts), num_passages, num_pairs (in texts), num_characters, num_not_selected (passages), layouts (texts by layout),
        dropped_pairs (by reason), contaminated_pairs (by the evaluation task that they overlap with), num_emptied_passages (that lost all
        their pairs), seconds.

    Raises:
        ValueError: a document with passages is not among the clean ones.
    """
    start = time.monotonic()
    totals, layout_counts = Counter[str](), Counter[str]()
    waiting = _Rows()
    with (
        pq.ParquetWriter(out / "data-00000.parquet", SCHEMA, compression="zstd") as writer,
        TableWriter(out, "dropped.parquet", DROPPED) as dropped_table,
    ):
        screening = _Screening(contamination, dropped_table)
        for members in _texts(_members(screening.kept(read_passages(pairs_tables)), clean_tables)):
            if members[0].passage.status == "not_selected":
                totals["num_not_selected"] += len(members)
                continue
            laid_out = _lay_out(members, layouts)
            waiting.add(pair_set, members, laid_out)
            layout_counts[laid_out.layout] += 1
            totals["num_passages"] += len(members)
            totals["num_pairs"] += laid_out.num_pairs
            totals["num_characters"] += len(laid_out.text)
            if waiting.num_rows >= _GROUP_ROWS or waiting.num_characters >= _GROUP_CHARACTERS:
                writer.write_table(waiting.table())
                waiting = _Rows()
        if waiting.num_rows:
            writer.write_table(waiting.table())
    return {
        "num_rows": layout_counts.total(),
        **{name: totals[name] for name in ("num_passages", "num_pairs", "num_characters", "num_not_selected")},
        "layouts": dict(sorted(layout_counts.items())),
        "dropped_pairs": dict(sorted(screening.reasons.items())),
        "contaminated_pairs": dict(sorted(screening.tasks.items())),
        "num_emptied_passages": screening.num_emptied,
        "seconds": round(time.monotonic() - start, 3),
    }


class _Screening:
    """Takes out the pairs that may not stand in a text, counts them and writes them down."""

    def __init__(self, contamination: ContaminationIndex | None, table: TableWriter) -> None:
        self.reasons, self.tasks = Counter[str](), Counter[str]()
        self.num_emptied = 0
        self._contamination, self._table = contamination, table

    def kept(self, groups: Iterable[list[Passage]]) -> Iterator[Passage]:
        """The passages with the pairs that are left; those of a group are screened together."""
        for passages in groups:
            found = iter(screen([pair for passage in passages for pair in passage.pairs], self._contamination))
            for passage in passages:
                reasons = [next(found) for _ in passage.pairs]
                yield self._without_dropped(passage, reasons) if any(reasons) else passage

    def _without_dropped(self, passage: Passage, reasons: Sequence[Dropped | None]) -> Passage:
        left = [pair for pair, dropped in zip(passage.pairs, reasons, strict=True) if dropped is None]
        self.num_emptied += not left
        for pair, dropped in zip(passage.pairs, reasons, strict=True):
            if dropped is not None:
                self._write(passage.passage_id, pair, dropped)
        return passage._replace(pairs=left)

    def _write(self, passage_id: str, pair: Pair, dropped: Dropped) -> None:
        self.reasons[dropped.reason] += 1
        overlap = dropped.overlap
        if overlap is not None:
            self.tasks[overlap.task] += 1
        example = {name: overlap and getattr(overlap, name) for name in ("task", "example_id", "words")}
        self._table.write({"passage_id": passage_id, **pair._asdict(), "reason": dropped.reason, **example})


class _Member(NamedTuple):
    """A passage with what is known of its document."""

    passage: Passage
    license: str | None
    metadata: str | None


def _members(passages: Iterable[Passage], clean_tables: Iterable[Path]) -> Iterator[_Member]:
    """The passages with their documents' metadata, both tables read side by side."""
    documents = _metadata(clean_tables)
    ahead: dict[str, str | None] = {}  # of documents that were read before their passages came
    document_id = license = metadata = None
    for passage in passages:
        if passage.document_id != document_id:
            document_id = passage.document_id
            while document_id not in ahead:
                try:
                    name, metadata = next(documents)
                except StopIteration:
                    raise ValueError(f"document {document_id} has passages but is not (or no longer) among the clean ones") from None
                ahead[name] = metadata
            metadata = ahead.pop(document_id)
            license = json.loads(metadata or "{}").get("license")
        yield _Member(passage, license, metadata)


def _metadata(clean_tables: Iterable[Path]) -> Iterator[tuple[str, str | None]]:
    for batch in batches(clean_tables, ("document_id", "metadata")):
        yield from zip(column(batch, "document_id"), column(batch, "metadata"), strict=True)


def _texts(members: Iterable[_Member]) -> Iterator[list[_Member]]:
    """Runs of passages that belong to one text (those that were not selected: to none)."""
    run: list[_Member] = []
    for member in members:
        if member.passage.status == "not_selected":
            yield [member]
            continue
        if run and not _continues(run[-1].passage, member.passage):
            yield run
            run = []
        run.append(member)
    if run:
        yield run


def _continues(last: Passage, passage: Passage) -> bool:
    """Whether the passage belongs to the text of the one before it."""
    if last.pairs and passage.pairs:
        return passage.chain_id == last.chain_id and last.shot is not None and passage.shot == last.shot + 1
    return not last.pairs and not passage.pairs and passage.document_id == last.document_id


def _lay_out(members: Sequence[_Member], layouts: Layouts) -> LaidOut:
    first = members[0].passage
    # A chain that started anew behind a passage without pairs holds several texts: the first passage tells them apart.
    return lay_out([Shot(m.passage.text, m.passage.pairs) for m in members], layouts, key=f"{first.chain_id}\0{first.passage_id}")


class _Rows:
    """Rows on their way into the table, column by column: a container a row would cost Python's search for garbage much time."""

    def __init__(self) -> None:
        self.num_rows = self.num_characters = 0
        self._columns: dict[str, list[Any]] = {name: [] for name in SCHEMA.names}
        self._ends = [0]  # of each row's lists, in the columns that hold their items

    def add(self, pair_set: str, members: Sequence[_Member], laid_out: LaidOut) -> None:
        """Add a text; its id is the pair set, the first passage and how many follow it."""
        columns = self._columns
        columns["text_id"].append(f"{pair_set}/{members[0].passage.passage_id}+{len(members) - 1}")
        columns["text"].append(laid_out.text)
        columns["passage_ids"] += [member.passage.passage_id for member in members]
        columns["num_pairs"].append(laid_out.num_pairs)
        columns["layout"].append(laid_out.layout)
        columns["license"] += [member.license for member in members]
        columns["metadata"] += [member.metadata for member in members]
        self._ends.append(len(columns["passage_ids"]))
        self.num_rows += 1
        self.num_characters += len(laid_out.text)

    def table(self) -> pa.Table:
        """The rows as a table."""
        return pa.table([self._array(field) for field in SCHEMA], schema=SCHEMA)

    def _array(self, field: pa.Field) -> pa.Array:
        is_list = pa.types.is_list(field.type)
        # By way of polars, which reads Python's objects several times faster than pyarrow.
        values = pl.Series(values=self._columns[field.name]).to_arrow(compat_level=pl.CompatLevel.oldest())
        values = values.cast(field.type.value_type if is_list else field.type)
        return pa.ListArray.from_arrays(pa.array(self._ends, pa.int32()), values) if is_list else values
