"""The page of a pair set's quality, as HTML to look at and as Markdown for previews."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, FileSystemLoader

_MARKDOWN_EXAMPLES, _MARKDOWN_PASSAGE = 10, 280
_MAX_SHARDS = 40


class Measure(NamedTuple):
    """One number with its definition."""

    metric: str
    value: float
    num_examples: int
    meaning: str
    is_share: bool = False

    @property
    def shown(self) -> str:
        """The value for people."""
        if self.is_share:
            return f"{100 * self.value:.1f} %"
        return f"{self.value:,.0f}" if self.value == int(self.value) else f"{self.value:,.2f}"


@dataclass
class ShardCounts:
    """What is counted in each shard."""

    num_passages: int = 0
    num_with_pair: int = 0
    num_pairs: int = 0

    @property
    def share(self) -> float:
        """Share of the passages with a valid pair."""
        return self.num_with_pair / self.num_passages if self.num_passages else 0.0


class Example(NamedTuple):
    """An augmented text beside its passages."""

    text_id: str
    layout: str
    num_pairs: int
    licenses: Sequence[str]
    passages: Sequence[str]
    parts: Sequence[tuple[bool, str]]
    """The text in parts: whether it is a passage, and the part."""


def write_pages(
    measures: Sequence[Measure], shards: Mapping[str, ShardCounts], layouts: Mapping[str, int], examples: Sequence[Example], *, out: Path
) -> None:
    """Write `quality.html` and `quality.md`; of many shards those with the lowest share of passages with a pair are shown."""
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["readable"] = _readable
    worst = sorted(shards, key=lambda shard: (shards[shard].share, shard))[:_MAX_SHARDS]
    html = environment.get_template("quality_page.html.j2").render(
        measures=measures,
        headline=[m for m in measures if m.metric in ("passages_with_valid_pair", "pairs_per_passage", "supported", "grounded")],
        shards={shard: shards[shard] for shard in sorted(worst)},
        num_shards=len(shards),
        layouts=layouts,
        num_texts=sum(layouts.values()),
        examples=examples,
    )
    (out / "quality.html").write_text(html + "\n", encoding="utf-8")
    (out / "quality.md").write_text(_markdown(measures, layouts, examples), encoding="utf-8")


def _markdown(measures: Sequence[Measure], layouts: Mapping[str, int], examples: Sequence[Example]) -> str:
    lines = ["| measure | value | of | meaning |", "|---|--:|--:|---|"]
    lines += [f"| {_readable(m.metric)} | {m.shown} | {m.num_examples:,} | {m.meaning} |" for m in measures]
    lines += ["", "Texts by layout: " + ", ".join(f"{_readable(name)} {num:,}" for name, num in layouts.items()) + ".", ""]
    lines += [f"{len(examples)} texts drawn by hash, not picked; passages are cut here, added text stands in full.", ""]
    for number, example in enumerate(examples[:_MARKDOWN_EXAMPLES], 1):
        raw = "\n".join(_cut(passage) for passage in example.passages)
        augmented = "".join(_cut(part) if is_passage else part for is_passage, part in example.parts)
        title = f"{number}. {_readable(example.layout)}, {example.num_pairs} pairs"
        lines += [f"| raw | {_cell(title)} |", "|---|---|", f"| {_cell(raw)} | {_cell(augmented)} |", ""]
    return "\n".join(lines)


def _readable(name: str) -> str:
    return name.replace("_", " ")


def _cut(passage: str) -> str:
    passage = passage.rstrip()
    return passage if len(passage) <= _MARKDOWN_PASSAGE else passage[:_MARKDOWN_PASSAGE].rstrip() + " […]"


def _cell(text: str) -> str:
    """Text that stands in a cell of a Markdown table as it is."""
    for sign in "&<>|*_`#[]\\~$":
        text = text.replace(sign, f"\0{ord(sign)};")
    return text.strip().replace("\0", "&#").replace("\n", "<br>")
