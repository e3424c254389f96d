"""The first rows of a table as Markdown, written beside it: whoever shows an artifact reads no data file."""

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import pyarrow.parquet as pq

PREVIEW = "logs/preview.md"
PREVIEW_ROWS = 3
PREVIEW_CHARACTERS = 300
LINE_BREAK = " ↵ "
"""In a cell of a table: the UI shows no HTML, so `<br>` would glue lines together."""


def write_preview(folder: Path) -> None:
    """Write `logs/preview.md` for the main table in the folder, if there is one and no page of Markdown, or preview of its own, says more."""
    tables = sorted(folder.glob("data-*.parquet"))
    path = folder / PREVIEW
    if tables and not path.exists() and not any(folder.glob("*.md")):
        path.parent.mkdir(exist_ok=True)
        path.write_text(preview_table(tables[0]), encoding="utf-8")


def preview_table(path: Path) -> str:
    """The first rows of a Parquet file as a Markdown table, one line a column, long values cut."""
    with pq.ParquetFile(path) as file:
        batch = next(file.iter_batches(batch_size=PREVIEW_ROWS), None)
    rows = batch.to_pylist() if batch is not None else []
    if not rows:
        return "no rows"
    head = "| | " + " | ".join(f"row {number}" for number in range(len(rows))) + " |"
    lines = [head, "|" + "---|" * (len(rows) + 1)]
    lines += [f"| **{name}** | " + " | ".join(markdown_cell(row[name]) for row in rows) + " |" for name in rows[0]]
    return "\n".join(lines)


def markdown_table(heads: Sequence[str], rows: Iterable[Iterable[str]]) -> list[str]:
    """The lines of a Markdown table; what could be taken for Markdown in a cell is its giver's to escape (`markdown_cell`)."""
    return ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads), *("| " + " | ".join(cells) + " |" for cells in rows)]


def markdown_cell(value: object) -> str:
    """The value as it is in a cell of a table: neither Markdown nor HTML."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    text = text[:PREVIEW_CHARACTERS] + ("…" if len(text) > PREVIEW_CHARACTERS else "")
    return re.sub(r"\s*\n\s*", LINE_BREAK, text.translate({ord(sign): f"&#{ord(sign)};" for sign in "&<>|*_`#[]\\~$"}))
