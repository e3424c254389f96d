"""What a person sees of an artifact in the UI: counts, throughput, identity, and a readable preview or a plot."""

import base64
import io
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

import dagster as dg

from instpt_assets.store.preview import LINE_BREAK
from instpt_assets.store.store import Artifact

MODEL_CARD = "checkpoint/README.md"
PLOT_BYTES = 100_000
"""Events are kept in a database: what is larger is shown in fewer colours, or where it lies."""

LEADING = (
    "warning",
    "final_loss",
    "final_held_out_loss",
    "steps",
    "tokens",
    "num_tokens",
    "bytes_per_token",
    "passages_per_second",
    "tokens_per_second",
    "mfu",
    "training_seconds",
    "resumed_from_step",
    "extended_from_step",
    "not_extended",
    "pairs_per_passage",
    "no_valid_pair_share",
    "accepted_share",
    "cached_share",
    "reused_chains",
    "accelerator_seconds",
)
"""Statistics that a person looks for first, in this order; the others follow by name."""


def describe(artifact: Artifact, reused: bool) -> dict[str, Any]:
    """Metadata of a materialization, in the order in which the UI shows it: what a person reads, then counts, then what is nested or technical."""
    manifest = artifact.manifest
    metadata: dict[str, Any] = dict(_pages(artifact))
    metadata["reused"] = reused
    statistics = {name: _readable(value) for name, value in manifest.statistics.items()}
    rows = statistics.pop("num_rows", None)
    if rows is not None:
        metadata["dagster/row_count" if manifest.partition == "all" else "dagster/partition_row_count"] = rows
        if statistics.get("seconds"):
            metadata["rows_per_second"] = round(rows / statistics["seconds"], 1)
    leading = {name: statistics[name] for name in LEADING if name in statistics}
    plain = {name: value for name, value in {**leading, **statistics}.items() if isinstance(value, str | int | float)}
    nested = {name: dg.MetadataValue.json(value) for name, value in statistics.items() if name not in plain}
    places = {"path": dg.MetadataValue.path(artifact.url), **_checkpoint(artifact)}
    return {**metadata, **plain, "identity": manifest.identity, **places, **nested}


def _checkpoint(artifact: Artifact) -> Mapping[str, dg.MetadataValue]:
    """Of a trained model: where the last checkpoint lies, as a folder to load."""
    files = artifact.manifest.by_name
    if "checkpoint/config.json" not in files:
        return {}
    folder = PurePosixPath(files["checkpoint/config.json"].path).parent
    return {"checkpoint": dg.MetadataValue.path(f"{artifact.url}/{folder}")}


def _pages(artifact: Artifact) -> Mapping[str, dg.MarkdownMetadataValue]:
    """Markdown files and plots at the top of an artifact (or among its logs) and the card of a model, as Markdown."""
    pages: dict[str, dg.MarkdownMetadataValue] = {}
    card: dict[str, dg.MarkdownMetadataValue] = {}
    for file in artifact.manifest.files:
        path = PurePosixPath(file.name)
        if file.name == MODEL_CARD:
            text = artifact.file(file.name).read_text(encoding="utf-8")
            card["model_card"] = dg.MetadataValue.md(text.split("\n---\n", 1)[1])  # behind the YAML, which is for the hub
        if str(path.parent) not in (".", "logs"):
            continue
        if path.suffix == ".md":
            text = artifact.file(file.name).read_text(encoding="utf-8").replace("<br>", LINE_BREAK)
            pages["preview" if "preview" not in pages else path.stem] = dg.MetadataValue.md(text)
        elif path.suffix == ".png":
            picture = _picture(artifact.file(file.name).read_bytes())
            shown = f"data:image/png;base64,{base64.b64encode(picture).decode()}"
            too_large = f"too large to show here ({len(picture) / 1e3:.0f} kB): `{artifact.url}/{file.path}`"
            pages[f"{path.stem}_plot"] = dg.MetadataValue.md(f"![{path.stem}]({shown})" if len(picture) <= PLOT_BYTES else too_large)
    return {**pages, **card}


def _readable(value: Any) -> Any:
    """Numbers to six digits, at any depth; the manifest has them in full."""
    if isinstance(value, float):
        return round(value, 1) if abs(value) >= 100_000 else float(f"{value:.6g}")
    if isinstance(value, Mapping):
        return {name: _readable(each) for name, each in value.items()}
    return [_readable(each) for each in value] if isinstance(value, list | tuple) else value


def _picture(png: bytes) -> bytes:
    """The picture as PNG, in 64 colours if it is large."""
    if len(png) <= PLOT_BYTES:
        return png
    from PIL import Image

    smaller = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").quantize(64).save(smaller, "png", optimize=True)
    return smaller.getvalue()
