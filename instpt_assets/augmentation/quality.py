"""The quality of a pair set over all its shards: measures with their definitions, and a page with texts to look at.

Everything is read as a stream, once. Counts cover every passage and pair. What looks closer covers uniform samples, chosen by hash of ids
under the seed, so that they are the same in whatever order the shards are read: texts (their categories, a judge's verdicts, the page's
examples), passages with pairs (comparisons by words), and passages of each corpus (coverage).
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from instpt_assets.augmentation.coverage import CoveredPassage, measure_coverage
from instpt_assets.augmentation.judging import Judgement, Question
from instpt_assets.augmentation.quality_counts import Counts, ShardCounts
from instpt_assets.augmentation.quality_examples import SampledText
from instpt_assets.augmentation.quality_measures import Findings, Measure, measures
from instpt_assets.augmentation.quality_page import write_pages
from instpt_assets.augmentation.quality_rows import Passage, read_texts
from instpt_assets.augmentation.quality_source import Source
from instpt_assets.recipe.quality import CorpusQuality
from instpt_assets.recipe.synthesis import Layouts
from instpt_assets.store.making import Inputs
from instpt_assets.store.manifest import Spec
from instpt_assets.synthesis.sampling import Sample

NUM_COMPARED = 4000
"""Passages at most whose pairs are compared with them."""
NUM_COVERED = 1000
"""Passages at most of each corpus whose words are looked for in their pairs."""

JudgeAll = Callable[[Sequence[Question]], Judgement]


def make_corpus_quality(spec: Spec, inputs: Inputs, out: Path, judge: JudgeAll | None = None) -> dict[str, Any]:
    """Build `<pair set>/corpus_quality` of that spec; see `measure_quality`."""
    tables: dict[str, dict[str, list[Path]]] = {"instruction_pairs": {}, "augmented_corpus": {}}
    for (asset, shard), artifact in inputs.items():
        stage = asset.rpartition("/")[2]
        if stage in tables:
            tables[stage][shard] = artifact.tables()
    return measure_quality(
        *tables.values(),
        quality=CorpusQuality.model_validate_json(json.dumps(spec.recipe["corpus_quality"])),
        layouts=Layouts.model_validate_json(json.dumps(spec.recipe["layouts"])),
        source=Source.of(spec, inputs),
        judge=judge,
        out=out,
    )


def measure_quality(
    pairs_tables: Mapping[str, Sequence[Path]],
    augmented_tables: Mapping[str, Sequence[Path]],
    *,
    quality: CorpusQuality,
    layouts: Layouts,
    out: Path,
    source: Source | None = None,
    judge: JudgeAll | None = None,
) -> dict[str, Any]:
    """Write `data-00000.parquet` (metric, value, num_examples, low, high), `quality.html`, `quality.md` and `quality.png`.

    A judge's verdicts lie beside them in `verdicts.parquet`.

    Args:
        pairs_tables: `instruction_pairs` by shard.
        augmented_tables: `augmented_corpus` by shard.
        quality: sizes and seed of the samples.
        layouts: the recipe's probabilities, which the layouts are compared with.
        out: an existing folder.
        source: what the tables come from, for the page.
        judge: says of pairs whether they are relevant and accurate.

    Returns:
        num_rows (metrics), metrics (value by name), num_texts, num_pairs, layouts, scenarios, dropped_pairs, categories (of the sampled
        pairs), coverage (by corpus), num_judged (by status, where there is a judge), seconds.

    Raises:
        ValueError: the tables do not belong together.
    """
    start = time.monotonic()
    counts = Counts()
    texts = Sample[SampledText](quality.num_texts, quality.seed)
    compared = Sample[CoveredPassage](NUM_COMPARED, quality.seed)
    covered = dict[str, Sample[CoveredPassage]]()
    for shard in sorted(augmented_tables):
        counts.shards[shard] = ShardCounts()
        of_corpus = covered.setdefault(shard.split("--")[0], Sample[CoveredPassage](NUM_COVERED, quality.seed))
        for text in read_texts(pairs_tables[shard], augmented_tables[shard]):
            counts.add(shard, text)
            if text.num_pairs:
                texts.offer_made(text.text_id, partial(SampledText.of, text))
            for passage in text.passages:
                of_corpus.offer_made(passage.passage_id, partial(_covered, passage))
                if passage.pairs:
                    compared.offer_made(passage.passage_id, partial(_covered, passage))
    sampled = texts.items()
    questions = [Question(p.passage_id, p.text, pair) for text in sampled for p in text.passages for pair in p.pairs]
    findings = Findings(
        source or Source(),
        counts,
        compared.items(),
        [(question.pair, question.passage) for question in questions],
        measure_coverage({corpus: sample.items() for corpus, sample in sorted(covered.items())}),
        None if judge is None else judge(questions),
    )
    categories = findings.categories
    found = measures(findings, categories)
    _table(found).write_parquet(out / "data-00000.parquet", compression="zstd")
    if findings.judgement is not None:
        findings.judgement.table().write_parquet(out / "verdicts.parquet", compression="zstd")
    write_pages(findings, categories, found, sampled, quality=quality, layouts=layouts, out=out)
    return {
        "num_rows": len(found),
        "metrics": {measure.metric: None if measure.value is None else round(measure.value, 4) for measure in found},
        "num_texts": counts.num_texts,
        "num_pairs": counts.num_pairs,
        "layouts": dict(sorted(counts.layouts.items())),
        "scenarios": dict(counts.scenarios),
        "dropped_pairs": dict(findings.source.dropped_pairs),
        "categories": dict(categories),
        "coverage": {
            corpus: {"num_passages": own.num_passages, "num_terms": len(own.terms), "num_asked_terms": own.num_asked_terms}
            for corpus, own in findings.coverage.items()
        },
        **({} if findings.judgement is None else {"num_judged": findings.judgement.statuses}),
        "seconds": round(time.monotonic() - start, 3),
    }


def _covered(passage: Passage) -> CoveredPassage:
    return CoveredPassage(passage.text, passage.pairs)


def _table(found: Sequence[Measure]) -> pl.DataFrame:
    rows = [(m.metric, m.value, m.num_examples, *(m.interval or (None, None))) for m in found]
    schema = {"metric": pl.String, "value": pl.Float64, "num_examples": pl.Int64, "low": pl.Float64, "high": pl.Float64}
    return pl.DataFrame(rows, schema=schema, orient="row")
