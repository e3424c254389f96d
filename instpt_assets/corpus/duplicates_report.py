"""What was removed as duplicates: counts by shard, and a page of examples side by side."""

import heapq
from collections import Counter
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import pyarrow as pa

from instpt_assets.corpus.signature_tables import SignatureTables
from instpt_assets.corpus.tables import TableWriter
from instpt_assets.store.preview import markdown_cell, markdown_table

PAGE = "duplicates.md"

Kind = Literal["exact", "same_id", "near"]
KINDS: tuple[Kind, ...] = get_args(Kind)

_SUMMARY = pa.schema(
    [("shard", pa.string()), ("num_documents", pa.int64()), ("num_removed", pa.int64()), *((f"num_{kind}", pa.int64()) for kind in KINDS)]
)
_NAMED = {"exact": "the same text", "same_id": "another text under an id of before", "near": "nearly the same text"}
_EXAMPLES = {"exact": 2, "same_id": 2, "near": 8}
_SHARDS_SHOWN = 10


class Pair(NamedTuple):
    """A document that is removed, and the one that stays in its place. Both by their numbers (`SignatureTables`)."""

    removed: int
    stays: int
    kind: Kind
    similarity: float | None
    """Estimated Jaccard similarity; None where there are no signatures."""


class DuplicatesReport:
    """Counts pairs as they are found; keeps a few for people.

    Args:
        tables: what was searched.
    """

    def __init__(self, tables: SignatureTables) -> None:
        self._tables = tables
        self._removed: list[Counter[Kind]] = [Counter() for _ in tables.shards]
        # Of near-duplicates those that resemble each other least: there a person sees whether the threshold is right.
        self._examples: dict[Kind, list[tuple[float, int, Pair]]] = {kind: [] for kind in KINDS}

    def add(self, shard: int, pair: Pair) -> None:
        """Count a pair of the shard at that place."""
        self._removed[shard][pair.kind] += 1
        examples = self._examples[pair.kind]
        item = (-(pair.similarity or 0.0), -pair.removed, pair)
        if len(examples) < _EXAMPLES[pair.kind]:
            heapq.heappush(examples, item)
        else:
            heapq.heappushpop(examples, item)

    def write(self, out: Path) -> dict[str, Any]:
        """Write the summary table (a row a shard) and the page.

        Returns:
            The counts of all shards, and a warning where ids are not unique.
        """
        documents: Counter[int] = Counter()
        for group in self._tables.row_groups:
            documents[group.shard] += group.end - group.start
        rows: list[dict[str, Any]] = [
            {
                "shard": key,
                "num_documents": documents[shard],
                "num_removed": removed.total(),
                **{f"num_{kind}": removed[kind] for kind in KINDS},
            }
            for shard, (key, removed) in enumerate(zip(self._tables.shards, self._removed, strict=True))
        ]
        with TableWriter(out, "data", _SUMMARY) as table:
            for row in rows:
                table.write(row)
        total = {name: sum(row[name] for row in rows) for name in _SUMMARY.names if name != "shard"}
        (out / PAGE).write_text("\n".join([*self._counts(rows, total), "", *self._pairs()]) + "\n", encoding="utf-8")
        return {**total, **warning_of_ids(total["num_same_id"])}

    def _counts(self, rows: list[dict[str, Any]], total: dict[str, int]) -> list[str]:
        most = sorted(rows, key=lambda row: -row["num_removed"])[:_SHARDS_SHOWN]
        more = f", of the {_SHARDS_SHOWN} with most removed" if len(rows) > _SHARDS_SHOWN else ""
        shown = [{"shard": f"**all {len(rows)}**{more}", **total}, *most]
        names = _SUMMARY.names
        heads = [name.removeprefix("num_").replace("_", " ") for name in names]
        return markdown_table(heads, ([f"{row[name]:,}" if name != "shard" else row[name] for name in names] for row in shown))

    def _pairs(self) -> list[str]:
        lines = []
        for kind, examples in self._examples.items():
            if not examples:
                continue
            least = ", those least alike" if kind == "near" else ""
            pairs = [pair for _, _, pair in sorted(examples, key=lambda item: (-item[0], item[1]))]
            rows = [
                ("" if pair.similarity is None else f"{pair.similarity:.2f}", self._shown(pair.removed), self._shown(pair.stays))
                for pair in pairs
            ]
            lines += [f"**{_NAMED[kind].capitalize()}**{least}", "", *markdown_table(["similarity", "removed", "stays"], rows), ""]
        return lines or ["No document is removed."]

    def _shown(self, number: int) -> str:
        row = self._tables.row(number, ["document_id", "excerpt"])
        return f"**{markdown_cell(row['document_id'])}** {markdown_cell(row['excerpt'])}"


def warning_of_ids(num_documents: int) -> dict[str, str]:
    """A statistic that says what to do about documents that are lost because their ids are not unique; empty where there are none."""
    return (
        {
            "warning": f"{num_documents} documents have the id of another one and are left out: ids must be unique in a corpus, or drop id_field"
        }
        if num_documents
        else {}
    )
