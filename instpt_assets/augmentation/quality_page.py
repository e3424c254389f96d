"""The page of a pair set's quality: HTML to show others, and in short as Markdown with a plot for the UI."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader

from instpt_assets.augmentation.categories import CATEGORIES, OTHER
from instpt_assets.augmentation.coverage import MIN_KEYNESS, MIN_TERM_PASSAGES, MIN_TERM_SHARE, Coverage, Term
from instpt_assets.augmentation.quality_charts import charts, readable
from instpt_assets.augmentation.quality_counts import ShardCounts
from instpt_assets.augmentation.quality_examples import SampledText, example
from instpt_assets.augmentation.quality_markdown import markdown
from instpt_assets.augmentation.quality_measures import Findings, Measure
from instpt_assets.augmentation.quality_plots import plot_charts
from instpt_assets.recipe.quality import CorpusQuality
from instpt_assets.recipe.synthesis import Layouts

NUM_EXAMPLES = 10
"""Texts on the page."""
RAW_CHARACTERS, PASSAGE_CHARACTERS, ADDED_CHARACTERS = 6000, 360, 12_000
"""Longer passages, passages inside of augmented texts, and added texts are cut on the page."""
MAX_SHARDS, MAX_CORPORA, MAX_ARTIFACTS, MAX_TERMS = 40, 20, 40, 20
HEADLINE = {
    "pairs": "pairs",
    "pairs_per_passage": "pairs a passage",
    "passages_with_valid_pair": "passages with a valid pair",
    "judged_relevant": "relevant to their passage, as judged",
    "judged_accurate": "accurate, as judged",
    "relevant": "relevant to their passage, by words",
    "borne_out": "responses borne out by the passage, by words",
    "categories": "task categories",
    "terms_asked": "of the corpus's own terms asked about",
}
"""Measures that stand at the top, in this order, as far as there are such, and what they are called there."""
DEFINITIONS_OF_TERMS = (
    f"A corpus's own terms are content words beyond common English that stand in at least {100 * MIN_TERM_SHARE:g} % of its sampled passages "
    f"(and in {MIN_TERM_PASSAGES} or more); where the recipe has other corpora, in at least {MIN_KEYNESS:g} times the share of theirs."
)


class CorpusRow(NamedTuple):
    """A corpus in the table of coverage."""

    name: str
    counts: ShardCounts
    coverage: Coverage
    asked: Sequence[Term]
    """Its most frequent terms that pairs use."""
    not_asked: Sequence[Term]
    """Its most frequent terms that no pair uses."""


def write_pages(
    findings: Findings,
    categories: Mapping[str, int],
    measures: Sequence[Measure],
    sampled: Sequence[SampledText],
    *,
    quality: CorpusQuality,
    layouts: Layouts,
    out: Path,
) -> None:
    """Write `quality.html`, `quality.md` and `quality.png`; of many shards those with the lowest share of passages with a pair are shown.

    Raises:
        ValueError: a sampled text does not hold its passages.
    """
    drawn = charts(findings, categories, layouts)
    sizes = {"raw_characters": RAW_CHARACTERS, "passage_characters": PASSAGE_CHARACTERS, "added_characters": ADDED_CHARACTERS}
    examples = [example(row, **sizes) for row in sampled[:NUM_EXAMPLES]]
    headline = [measure for name in HEADLINE for measure in measures if measure.metric == name]
    shards = findings.counts.shards
    worst = sorted(shards, key=lambda shard: (shards[shard].share, shard))[:MAX_SHARDS]
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["readable"] = readable
    html = environment.get_template("quality_page.html.j2").render(
        source=findings.source,
        title=title(findings),
        lead=lead(findings),
        headline=headline,
        labels=HEADLINE,
        chance=next((measure for measure in measures if measure.metric == "relevant_by_chance"), None),
        charts=drawn,
        groups=_groups(measures),
        judge=quality.judge,
        corpora=_corpora(findings),
        num_corpora=len(findings.coverage),
        definition_of_terms=DEFINITIONS_OF_TERMS,
        shards={shard: shards[shard] for shard in sorted(worst)},
        num_shards=len(shards),
        examples=examples,
        num_sampled=len(sampled),
        categories=[(known.name, known.rule, categories.get(known.name, 0)) for known in CATEGORIES]
        + [(OTHER, "no rule applies", categories.get(OTHER, 0))],
        recipe=_json(findings.source.recipe),
        writing=[_json(recipe) for recipe in findings.source.writing],
        licenses=Counter(name or "unknown" for row in sampled for name in row.licenses).most_common(),
        artifacts=findings.source.artifacts[:MAX_ARTIFACTS],
    )
    (out / "quality.html").write_text(html + "\n", encoding="utf-8")
    plot_charts(drawn, out / "quality.png")
    short = markdown(title(findings), lead(findings), headline, measures, findings.counts, categories, sampled[:NUM_EXAMPLES])
    (out / "quality.md").write_text(short, encoding="utf-8")


def title(findings: Findings) -> str:
    """The page's title."""
    name = findings.source.pair_set
    return f"Corpus quality: {name}" if name else "Corpus quality"


def lead(findings: Findings) -> str:
    """What the page is about, in a sentence or two."""
    counts = findings.counts
    shards = f"{len(counts.shards):,} shard{'s' * (len(counts.shards) != 1)}"
    corpora = len(findings.coverage)
    where = f"{shards} of {corpora} corpora" if corpora > 1 else f"{shards} of {next(iter(findings.coverage), 'no corpus')}"
    writers = findings.source.writers
    by = f" The pairs were written by {' and by '.join(writers)}." if writers else ""
    return f"{counts.num_pairs:,} pairs on {counts.num_passages:,} passages in {counts.num_texts:,} texts, from {where}.{by}"


def _groups(measures: Sequence[Measure]) -> dict[str, list[Measure]]:
    groups: dict[str, list[Measure]] = {}
    for measure in measures:
        groups.setdefault(measure.group, []).append(measure)
    return groups


def _corpora(findings: Findings) -> list[CorpusRow]:
    totals: dict[str, Counter[str]] = {}
    for shard, counted in findings.counts.shards.items():
        of_corpus = totals.setdefault(shard.split("--")[0], Counter())
        of_corpus.update(passages=counted.num_passages, ok=counted.num_with_pair, pairs=counted.num_pairs)
    largest = sorted(findings.coverage, key=lambda corpus: (-totals[corpus]["passages"], corpus))[:MAX_CORPORA]
    rows = []
    for corpus in sorted(largest):
        coverage, own = findings.coverage[corpus], totals[corpus]
        asked = [term for term in coverage.terms if term.num_asked][:MAX_TERMS]
        missed = [term for term in coverage.terms if not term.num_asked][:MAX_TERMS]
        rows.append(CorpusRow(corpus, ShardCounts(own["passages"], own["ok"], own["pairs"]), coverage, asked, missed))
    return rows


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)
