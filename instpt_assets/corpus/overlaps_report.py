"""What of a shard overlapped with the evaluation: a table of all, counts by task, and a page with examples for people."""

from collections import Counter, defaultdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from instpt_assets.corpus.contamination import OVERLAPS, Overlap
from instpt_assets.corpus.tables import TableWriter
from instpt_assets.store.preview import markdown_cell, markdown_table

PAGE = "overlaps.md"
_SHOWN = 5  # of each task


class OverlapsReport:
    """Writes `overlaps.parquet` (`OVERLAPS`) as documents are found; used as a context.

    Args:
        out: an existing folder.
    """

    def __init__(self, out: Path) -> None:
        self._out = out
        self._table = TableWriter(out, "overlaps.parquet", OVERLAPS)
        self._by_task: Counter[str] = Counter()
        self._examples: defaultdict[str, list[tuple[str, str, str]]] = defaultdict(list)

    def add(self, document_id: str, overlap: Overlap) -> None:
        """Take a document that overlaps."""
        self._table.write({"document_id": document_id, **overlap._asdict()})
        self._by_task[overlap.task] += 1
        if len(self._examples[overlap.task]) < _SHOWN:
            self._examples[overlap.task].append((document_id, overlap.example_id, overlap.words))

    def __enter__(self) -> Self:
        self._table.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._table.__exit__(kind, error, traceback)

    def write_page(self) -> dict[str, Any]:
        """Write the page.

        Returns:
            overlaps_by_task: documents by the task that they overlap with first.
        """
        lines = ["No document overlaps with an evaluation example."]
        if self._by_task:
            tasks = self._by_task.most_common()
            shown = [map(markdown_cell, (task, *example)) for task, _ in tasks for example in self._examples[task]]
            lines = markdown_table(["task", "documents"], [(markdown_cell(task), f"{number:,}") for task, number in tasks])
            lines += ["", *markdown_table(["task", "document", "example", "words in common"], shown)]
        (self._out / PAGE).write_text("\n".join(lines) + "\n", encoding="utf-8")
        return {"overlaps_by_task": dict(sorted(self._by_task.items()))}
