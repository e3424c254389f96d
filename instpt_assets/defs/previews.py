"""What a person sees of an artifact in the UI: counts, throughput, identity, and a readable preview or a plot."""

import base64
import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import dagster as dg

from instpt_assets.store.store import Artifact

PREVIEW_ROWS = 3
PREVIEW_CHARACTERS = 300
PLOT_BYTES = 100_000
"""Larger pictures stay in the store: events are kept in a database."""


def describe(artifact: Artifact, reused: bool) -> dict[str, Any]:
    """Metadata of a materialization."""
    manifest = artifact.manifest
    metadata: dict[str, Any] = {"reused": reused, "identity": manifest.identity, "path": dg.MetadataValue.path(artifact.root)}
    statistics = dict(manifest.statistics)
    rows = statistics.pop("num_rows", None)
    if rows is not None:
        metadata["dagster/row_count" if manifest.partition == "all" else "dagster/partition_row_count"] = rows
        if statistics.get("seconds"):
            metadata["rows_per_second"] = round(rows / statistics["seconds"], 1)
    for name, value in statistics.items():
        metadata[name] = value if isinstance(value, str | int | float) else dg.MetadataValue.json(value)
    metadata |= {name: dg.MetadataValue.md(text) for name, text in _pages(artifact).items()}
    tables = sorted(name for name in artifact.names if name.startswith("data-") and name.endswith(".parquet"))
    if "preview" not in metadata and tables:
        metadata["preview"] = dg.MetadataValue.md(preview_table(artifact.file(tables[0])))
    return metadata


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


def _pages(artifact: Artifact) -> Mapping[str, str]:
    """Markdown files and plots at the top of an artifact (or among its logs), as Markdown."""
    pages = {}
    for file in artifact.manifest.files:
        path = PurePosixPath(file.name)
        if str(path.parent) not in (".", "logs"):
            continue
        if path.suffix == ".md":
            pages["preview" if "preview" not in pages else path.stem] = artifact.file(file.name).read_text(encoding="utf-8")
        elif path.suffix == ".png" and file.bytes <= PLOT_BYTES:
            picture = base64.b64encode(artifact.file(file.name).read_bytes()).decode()
            pages[f"{path.stem}_plot"] = f"![{path.stem}](data:image/png;base64,{picture})"
    return pages


def _cell(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    text = text[:PREVIEW_CHARACTERS] + ("…" if len(text) > PREVIEW_CHARACTERS else "")
    for old, new in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("|", "&#124;"), ("\n", "<br>")):
        text = text.replace(old, new)
    return text
