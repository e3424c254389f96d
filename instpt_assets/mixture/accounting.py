"""What is in a mixture: a table of its sources, its components in numbers, and a page for people."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

from instpt_assets.mixture.documents import RAW, Documents, HeldOut
from instpt_assets.mixture.drawing import Drawing, Drawn
from instpt_assets.mixture.stretches import SequenceWriter
from instpt_assets.store.preview import markdown_cell, markdown_table

_BAR = 20
"""Characters of a bar that stands for everything."""
_SHOWN_SHARDS = 20

_COUNTS = (
    "num_documents",
    "num_tokens",
    "cut_tokens",
    "available_documents",
    "available_tokens",
    "unused_documents",
    "augmented_documents",
    "held_out_documents",
)


def source_table(documents: Documents, drawing: Drawing, drawn: Drawn, writer: SequenceWriter, budget: int) -> pl.DataFrame:
    """What each source gives.

    Columns: component (its label), asset, partition, num_documents (drawn, repeats counted), num_tokens (trained on), cut_tokens (of documents
    drawn, not trained on), available_documents, available_tokens, unused_documents (available and never drawn: fewer were needed),
    augmented_documents (raw ones left out because the arm has them augmented), held_out_documents (left out because they are, or hold,
    documents held out), repetition (tokens drawn / available), share (of the budget).
    """
    sources, tokens = documents.sources, np.concatenate([[0], np.cumsum(documents.num_tokens, dtype=np.int64)])
    available = np.diff(tokens[documents.first])
    return pl.DataFrame(
        {
            "component": [None if source.component is None else documents.mixture[source.component].label for source in sources],
            "asset": [source.asset for source in sources],
            "partition": [source.partition for source in sources],
            "num_documents": writer.drawn_documents,
            "num_tokens": writer.trained_tokens,
            "cut_tokens": writer.drawn_tokens - writer.trained_tokens,
            "available_documents": np.diff(documents.first),
            "available_tokens": available,
            "unused_documents": drawing.num_unused(drawn),
            "augmented_documents": [source.num_augmented for source in sources],
            "held_out_documents": [source.num_held_out for source in sources],
            "repetition": writer.drawn_tokens / np.maximum(available, 1),
            "share": writer.trained_tokens / budget,
        },
        schema_overrides={"component": pl.String, "asset": pl.String, "partition": pl.String},
    ).filter(pl.col("component").is_not_null())


def component_statistics(table: pl.DataFrame) -> dict[str, dict[str, Any]]:
    """The table's columns for each component, by its label."""
    parts = table.group_by("component", maintain_order=True).agg(pl.col(*_COUNTS, "share").sum())
    drawn = pl.col("num_tokens") + pl.col("cut_tokens")
    parts = parts.with_columns(repetition=drawn / pl.col("available_tokens"))
    return {row.pop("component"): row for row in parts.to_dicts()}


def page(statistics: Mapping[str, Any], table: pl.DataFrame, held_out: HeldOut, *, packing: str, sequence_length: int) -> str:
    """The mixture as Markdown: components with bars of their shares, what was left out and why, shards."""
    budget = statistics["num_tokens"]
    components: Mapping[str, Mapping[str, Any]] = statistics["components"]
    most = max(part["repetition"] for part in components.values())
    lines = [
        f"**{budget:,} tokens**: {statistics['num_sequences']:,} sequences of {sequence_length:,}, {statistics['num_steps']:,} steps. "
        f"{_PACKINGS[packing]}",
        "",
        *markdown_table(
            ("component", "share", "", "tokens trained on", "documents", "passes", ""),
            [
                (
                    f"**{markdown_cell(label)}**",
                    f"{part['share']:.2%}",
                    _bar(part["share"]),
                    f"{part['num_tokens']:,}",
                    f"{part['num_documents']:,}",
                    f"{part['repetition']:,.2f}",
                    _bar(part["repetition"] / most),
                )
                for label, part in components.items()
            ],
        ),
        *_remainder(statistics, budget),
        "",
        "What there was, and what was left out:",
        "",
        *markdown_table(
            (
                "component",
                "documents available",
                "tokens available",
                "never drawn (fewer needed)",
                "in augmented texts instead",
                "held out",
                "tokens cut away",
            ),
            [
                (
                    f"**{markdown_cell(label)}**",
                    f"{part['available_documents']:,}",
                    f"{part['available_tokens']:,}",
                    *(_count(part[name]) for name in ("unused_documents", "augmented_documents", "held_out_documents", "cut_tokens")),
                )
                for label, part in components.items()
            ],
        ),
        *_held_out(held_out),
        *_shards(table, budget),
    ]
    return "\n".join(lines) + "\n"


_PACKINGS = {
    "concatenate": "Documents stand one behind the other, cut where a sequence ends.",
    "best_fit": "Documents are packed by best fit: only those longer than a sequence are cut.",
}


def _bar(share: float) -> str:
    filled = round(share * _BAR)
    return "█" * filled + "░" * (_BAR - filled)


def _count(number: int) -> str:
    return f"{number:,}" if number else ""


def _remainder(statistics: Mapping[str, Any], budget: int) -> list[str]:
    padding = statistics["padding_tokens"]
    row = [f"| *padding* | {padding / budget:.2%} | {_bar(padding / budget)} | {padding:,} | | | |"] if padding else []
    split, drawn = statistics["split_documents"], statistics["num_documents"]
    return [*row, "", f"Documents that do not end in the sequence in which they begin: {split:,} of {drawn:,}."]


def _held_out(held_out: HeldOut) -> list[str]:
    if not held_out.num_documents:
        return []
    total = int(held_out.num_tokens.sum())
    return ["", f"Held out of training, to follow the loss on them: {held_out.num_documents:,} raw documents, {total:,} tokens."]


def _shards(table: pl.DataFrame, budget: int) -> list[str]:
    """Shards by what they give; of many, the first and a sum."""
    shards = table.filter(pl.col("partition") != "all")
    if shards.is_empty():
        return []
    rows = (
        shards.group_by("partition", maintain_order=True)
        .agg(
            raw=pl.col("num_documents").filter(pl.col("asset") == RAW).sum(),
            augmented=pl.col("num_documents").filter(pl.col("asset") != RAW).sum(),
            num_tokens=pl.col("num_tokens").sum(),
        )
        .sort("partition")
        .to_dicts()
    )
    lines = [(row["partition"], row) for row in rows[:_SHOWN_SHARDS]]
    if len(rows) > _SHOWN_SHARDS:
        rest = rows[_SHOWN_SHARDS:]
        summed = {name: sum(row[name] for row in rest) for name in ("raw", "augmented", "num_tokens")}
        lines.append((f"… {len(rest):,} more, to {rest[-1]['partition']}", summed))
    table_lines = markdown_table(
        ("shard", "raw documents", "augmented texts", "tokens trained on", "share"),
        [
            (
                markdown_cell(name),
                _count(row["raw"]),
                _count(row["augmented"]),
                f"{row['num_tokens']:,}",
                f"{row['num_tokens'] / budget:.2%}",
            )
            for name, row in lines
        ],
    )
    return ["", f"Shards ({len(rows):,}):", "", *table_lines]
