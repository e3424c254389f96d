"""What a person sees of an artifact in the UI: counts, throughput, identity, and a readable preview or a plot."""

import base64
import json
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import dagster as dg

from instpt_assets.store.store import Artifact

PREVIEW_ROWS = 3
PREVIEW_CHARACTERS = 300
PLOT_BYTES = 100_000
"""Larger pictures stay in the store: events are kept in a database."""
LINE_BREAK = " ↵ "
"""In a cell of a table: the UI shows no HTML, so `<br>` would glue lines together."""


def describe(artifact: Artifact, reused: bool) -> dict[str, Any]:
    """Metadata of a materialization, in the order in which the UI shows it: what a person reads, then counts, then what is nested or technical."""
    manifest = artifact.manifest
    metadata: dict[str, Any] = dict(_pages(artifact))
    tables = sorted(name for name in artifact.names if name.startswith("data-") and name.endswith(".parquet"))
    if "preview" not in metadata and tables:
        metadata["preview"] = dg.MetadataValue.md(preview_table(artifact.file(tables[0])))
    metadata["reused"] = reused
    statistics = dict(manifest.statistics)
    rows = statistics.pop("num_rows", None)
    if rows is not None:
        metadata["dagster/row_count" if manifest.partition == "all" else "dagster/partition_row_count"] = rows
        if statistics.get("seconds"):
            metadata["rows_per_second"] = round(rows / statistics["seconds"], 1)
    plain = {name: value for name, value in statistics.items() if isinstance(value, str | int | float)}
    nested = {name: dg.MetadataValue.json(value) for name, value in statistics.items() if name not in plain}
    return {**metadata, **plain, "identity": manifest.identity, "path": dg.MetadataValue.path(artifact.root), **nested}


def preview_table(path: Path, num_rows: int = PREVIEW_ROWS) -> str:
    """The first rows of a Parquet file as a Markdown table, one line a column, long values cut."""
    import polars as pl

    rows = pl.read_parquet(path, n_rows=num_rows).to_dicts()
    if not rows:
        return "no rows"
    head = "| | " + " | ".join(f"row {number}" for number in range(len(rows))) + " |"
    lines = [head, "|" + "---|" * (len(rows) + 1)]
    lines += [f"| **{name}** | " + " | ".join(_cell(row[name]) for row in rows) + " |" for name in rows[0]]
    return "\n".join(lines)


def _pages(artifact: Artifact) -> Mapping[str, dg.MarkdownMetadataValue]:
    """Markdown files and plots at the top of an artifact (or among its logs), as Markdown."""
    pages = {}
    for file in artifact.manifest.files:
        path = PurePosixPath(file.name)
        if str(path.parent) not in (".", "logs"):
            continue
        if path.suffix == ".md":
            text = artifact.file(file.name).read_text(encoding="utf-8").replace("<br>", LINE_BREAK)
            pages["preview" if "preview" not in pages else path.stem] = dg.MetadataValue.md(text)
        elif path.suffix == ".png" and file.bytes <= PLOT_BYTES:
            picture = base64.b64encode(artifact.file(file.name).read_bytes()).decode()
            pages[f"{path.stem}_plot"] = dg.MetadataValue.md(f"![{path.stem}](data:image/png;base64,{picture})")
    return pages


def _cell(value: object) -> str:
    """The value as it is in a cell of a table: neither Markdown nor HTML."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    text = text[:PREVIEW_CHARACTERS] + ("…" if len(text) > PREVIEW_CHARACTERS else "")
    return re.sub(r"\s*\n\s*", LINE_BREAK, text.translate({ord(sign): f"&#{ord(sign)};" for sign in "&<>|*_`#[]\\~$"}))
