"""The augmented corpus: chains of passages with pairs become texts, one shard at a time.

A text is what the synthesizer saw as one sequence: consecutive shots of a chain that have pairs. A passage without a pair breaks the
chain, and consecutive ones of a document stay one raw text, verbatim. What the pair set did not select is left out.
"""

import json
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from instpt_assets.augmentation.layouts import LaidOut, Shot, lay_out
from instpt_assets.augmentation.tables import Passage, batches, column, read_passages
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

_GROUP_ROWS, _GROUP_CHARACTERS = 4096, 1 << 24


def augment(
    pairs_tables: Sequence[Path],
    clean_tables: Sequence[Path],
    layouts: Layouts,
    *,
    pair_set: str,
    out: Path,
) -> dict[str, Any]:
    """Write the augmented texts of one shard to `out/data-00000.parquet`; equal inputs give equal bytes.

    Args:
        pairs_tables: `instruction_pairs` of the shard, its passages in the documents' order.
        clean_tables: `clean_corpus` of the shard, for licences and metadata.
        layouts: probabilities and seed of the layouts.
        pair_set: its name begins every `text_id`, so that they are unique over all pair sets.
        out: an existing folder.

    Returns:
        num_rows (texts), num_passages, num_pairs, num_characters, layouts (texts by layout), dropped_pairs (by reason),
        num_not_selected (passages), seconds.

    Raises:
        ValueError: a document with passages is not among the clean ones.
    """
    start = time.monotonic()
    totals, layout_counts, dropped = Counter[str](), Counter[str](), Counter[str]()
    waiting: list[tuple[Any, ...]] = []
    num_waiting = 0
    with pq.ParquetWriter(out / "data-00000.parquet", SCHEMA, compression="zstd") as writer:
        for members in _texts(_members(read_passages(pairs_tables), clean_tables)):
            if members[0].passage.status == "not_selected":
                totals["num_not_selected"] += len(members)
                continue
            laid_out = _lay_out(members, layouts)
            waiting.append(_row(pair_set, members, laid_out))
            num_waiting += len(laid_out.text)
            layout_counts[laid_out.layout] += 1
            dropped.update(laid_out.dropped)
            totals.update(num_passages=len(members), num_pairs=laid_out.num_pairs, num_characters=len(laid_out.text))
            if len(waiting) >= _GROUP_ROWS or num_waiting >= _GROUP_CHARACTERS:
                writer.write_table(_table(waiting))
                waiting, num_waiting = [], 0
        if waiting:
            writer.write_table(_table(waiting))
    return {
        "num_rows": layout_counts.total(),
        **{name: totals[name] for name in ("num_passages", "num_pairs", "num_characters", "num_not_selected")},
        "layouts": dict(sorted(layout_counts.items())),
        "dropped_pairs": dict(sorted(dropped.items())),
        "seconds": round(time.monotonic() - start, 3),
    }


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
    if last.status == "ok" and passage.status == "ok":
        return passage.chain_id == last.chain_id and last.shot is not None and passage.shot == last.shot + 1
    return last.status != "ok" and passage.status != "ok" and passage.document_id == last.document_id


def _lay_out(members: Sequence[_Member], layouts: Layouts) -> LaidOut:
    first = members[0].passage
    # A chain that started anew behind a passage without pairs holds several texts: the first passage tells them apart.
    return lay_out([Shot(m.passage.text, m.passage.pairs) for m in members], layouts, key=f"{first.chain_id}\0{first.passage_id}")


def _row(pair_set: str, members: Sequence[_Member], laid_out: LaidOut) -> tuple[Any, ...]:
    """The text's row, in the order of SCHEMA; `text_id` is the pair set, the first passage and how many follow it."""
    return (
        f"{pair_set}/{members[0].passage.passage_id}+{len(members) - 1}",
        laid_out.text,
        [member.passage.passage_id for member in members],
        laid_out.num_pairs,
        laid_out.layout,
        [member.license for member in members],
        [member.metadata for member in members],
    )


def _table(rows: Sequence[tuple[Any, ...]]) -> pa.Table:
    return pa.table([pa.array(values, field.type) for values, field in zip(zip(*rows, strict=True), SCHEMA, strict=True)], schema=SCHEMA)
