"""What the quality page draws: each chart as shares with labels, for the page's own bars and for the preview's plot."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from instpt_assets.augmentation.layouts import RAW
from instpt_assets.augmentation.quality_counts import MAX_PAIRS_SHOWN, RESPONSE_BINS, expected_layouts, openings
from instpt_assets.augmentation.quality_measures import NUM_DISTINCT, NUM_OPENINGS, Findings
from instpt_assets.recipe.synthesis import Layouts

MAX_CORPORA = 20
"""Corpora shown: those with the most passages."""


@dataclass(frozen=True)
class Bar:
    """One bar of a chart."""

    label: str
    share: float
    number: int | None
    """What the share is, counted."""
    mark: float | None = None
    """A share to compare with, drawn as a line across the bar."""


@dataclass(frozen=True)
class Chart:
    """Shares side by side."""

    name: str
    title: str
    note: str
    bars: Sequence[Bar]
    mark: str = ""
    """What the lines mean, if there are any."""
    is_histogram: bool = False
    """Whether the bars are ordered bins, better drawn as columns."""
    is_of_wholes: bool = False
    """Whether each bar is a share of a whole of its own, and not all together of one: then bars are drawn before that whole."""

    @property
    def top(self) -> float:
        """What the bars are scaled to: their whole, or the highest share or mark."""
        return 1.0 if self.is_of_wholes else max([max(bar.share, bar.mark or 0.0) for bar in self.bars], default=0.0) or 1.0


def charts(findings: Findings, categories: Mapping[str, int], layouts: Layouts) -> list[Chart]:
    """All charts; those without any bar are left out."""
    counts = findings.counts
    drawn = [
        _layouts(findings, layouts),
        Chart(
            "pairs_per_passage",
            "Pairs a passage",
            "Share of the passages with so many valid pairs.",
            _bars({_at_least(number): counts.pairs_per_passage[number] for number in range(MAX_PAIRS_SHOWN + 1)}),
            is_histogram=True,
        ),
        Chart(
            "categories",
            "Task categories",
            f"Share of the {sum(categories.values()):,} pairs of the sampled texts, told by rules.",
            _bars({readable(name): number for name, number in categories.items()}),
        ),
        Chart(
            "response_words",
            "Words a response",
            "Share of the pairs whose response has so many words.",
            _bars({_words(place): counts.response_words[place] for place in range(len(RESPONSE_BINS) + 1)}),
            is_histogram=True,
        ),
        Chart("scenarios", "Scenarios", "Share of all pairs.", _bars(counts.scenarios)),
        _coverage(findings),
        _openings(findings),
    ]
    return [chart for chart in drawn if chart.bars]


def readable(name: str) -> str:
    """A name for people."""
    return name.replace("_", " ")


def _bars(numbers: Mapping[str, int]) -> list[Bar]:
    total = sum(numbers.values())
    return [Bar(label, number / total, number) for label, number in numbers.items()] if total else []


def _layouts(findings: Findings, layouts: Layouts) -> Chart:
    counts = findings.counts
    num = counts.num_several + counts.num_few
    expected = expected_layouts(layouts, counts.num_several, counts.num_few)
    found = {name: number for name, number in counts.layouts.items() if name != RAW}
    names = [name for name in {**expected, **found} if found.get(name) or expected.get(name)]
    raw = counts.layouts[RAW]
    return Chart(
        "layouts",
        "Layouts",
        f"Share of the {num:,} texts with pairs; {raw:,} texts without any stay raw. What the recipe's probabilities let one expect takes into account "
        "how many texts have several pairs in every shot, which numbered, few-shot and next-turn layouts need.",
        [Bar(readable(name), found.get(name, 0) / num, found.get(name, 0), expected.get(name, 0.0) / num) for name in names] if num else [],
        mark="expected by the recipe",
    )


def _coverage(findings: Findings) -> Chart:
    shown = sorted(findings.coverage, key=lambda corpus: -findings.coverage[corpus].num_passages)[:MAX_CORPORA]
    bars = [
        Bar(corpus, own.domain, own.num_asked_terms, own.vocabulary)
        for corpus, own in ((corpus, findings.coverage[corpus]) for corpus in sorted(shown))
        if own.domain is not None
    ]
    return Chart(
        "coverage",
        "Coverage by corpus",
        "Share of the corpus's own terms that the pairs use.",
        bars,
        mark="of all content words",
        is_of_wholes=True,
    )


def _openings(findings: Findings) -> Chart:
    instructions = [pair.instruction for pair, _ in findings.sampled_pairs[:NUM_DISTINCT]]
    common = openings(instructions).most_common(NUM_OPENINGS)
    bars = [Bar(f"{opening} …", number / len(instructions), number) for opening, number in common]
    return Chart("openings", "How instructions begin", f"Share of {len(instructions):,} instructions with the same first two words.", bars)


def _at_least(number: int) -> str:
    return f"{number}+" if number == MAX_PAIRS_SHOWN else str(number)


def _words(place: int) -> str:
    if place == len(RESPONSE_BINS):
        return f">{RESPONSE_BINS[-1]}"
    low, high = (RESPONSE_BINS[place - 1] + 1 if place else 0), RESPONSE_BINS[place]
    return f"{low}\u2013{high}" if low < high and place else str(high)
