"""The measures of a pair set's quality, each one number with its definition."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from instpt_assets.augmentation.categories import CATEGORIES, OTHER, category
from instpt_assets.augmentation.coverage import Coverage, CoveredPassage
from instpt_assets.augmentation.judging import FAILED, JUDGED, TOO_LONG, UNREADABLE, Judgement
from instpt_assets.augmentation.layouts import Pair
from instpt_assets.augmentation.quality_counts import Counts, distinct, openings
from instpt_assets.augmentation.quality_source import Source
from instpt_assets.corpus.contamination import CONTAMINATED
from instpt_assets.evaluation.statistics import wilson_interval
from instpt_assets.synthesis.measures import MIN_SUPPORT, support_of
from instpt_assets.synthesis.support import content_words, grounded, normalise, supported

MIN_RELEVANCE = 0.5
"""Share of a pair's content words that must stand in a passage for the pair to count as relevant to it."""
NUM_DISTINCT = 1000
"""Instructions that distinct-n and openings are measured on: both change with the number."""
NUM_OPENINGS = 10


@dataclass(frozen=True)
class Measure:
    """One number with its definition."""

    metric: str
    group: str
    value: float | None
    """None if it is of nothing."""
    num_examples: int
    """What it is of."""
    meaning: str
    is_share: bool = False
    interval: tuple[float, float] | None = None
    """At 95 %, where the number is measured on a sample."""

    @property
    def shown(self) -> str:
        """The value for people."""
        if self.value is None:
            return "\u2013"
        if self.is_share:
            return f"{100 * self.value:.1f} %"
        return f"{self.value:,.0f}" if self.value == int(self.value) else f"{self.value:,.2f}"

    @property
    def shown_interval(self) -> str:
        """The interval for people, or nothing."""
        return "" if self.interval is None else f"{100 * self.interval[0]:.1f}\u2013{100 * self.interval[1]:.1f} %"


@dataclass(frozen=True)
class Findings:
    """All that was found out about a pair set."""

    source: Source
    counts: Counts
    compared: Sequence[CoveredPassage]
    """A uniform sample of the passages with pairs."""
    sampled_pairs: Sequence[tuple[Pair, str]]
    """The pairs of the sampled texts with their passages."""
    coverage: Mapping[str, Coverage]
    """By corpus."""
    judgement: Judgement | None

    @property
    def categories(self) -> Counter[str]:
        """Sampled pairs by category, the most frequent first."""
        found = Counter(category(pair, passage) for pair, passage in self.sampled_pairs)
        return Counter(dict(sorted(found.items(), key=lambda item: (-item[1], item[0]))))


def measures(findings: Findings, categories: Mapping[str, int]) -> list[Measure]:
    """All measures, group by group."""
    return [
        *_judge(findings.judgement),
        *_words(findings.compared),
        *_volume(findings.counts),
        *_validity(findings.counts, findings.source),
        *_form(findings.counts, categories),
        *_diversity(findings),
        *_coverage(findings.coverage),
    ]


def _share(metric: str, group: str, number: float, of: int, meaning: str, *, is_sample: bool = False) -> Measure:
    interval = wilson_interval(round(number), of) if is_sample else None
    return Measure(metric, group, number / of if of else None, of, meaning, True, interval)


def _ratio(metric: str, group: str, number: float, of: int, meaning: str) -> Measure:
    return Measure(metric, group, number / of if of else None, of, meaning)


def _judge(judgement: Judgement | None) -> Iterator[Measure]:
    if judgement is None:
        return
    group, statuses, num = "Judged by a model", judgement.statuses, len(judgement.verdicts)
    judged = statuses[JUDGED]
    for metric, decision, meaning in (
        ("judged_relevant", "relevant", "Context relevance: judged pairs of which the judge says that they are about their passage."),
        (
            "judged_accurate",
            "accurate",
            "Response accuracy: judged pairs of which the judge says that the response is correct by the passage.",
        ),
    ):
        yield _share(metric, group, judgement.count(decision), judged, meaning, is_sample=True)
    yield _share(
        "judged_unreadable", group, statuses[UNREADABLE], num, "Pairs whose verdict was not the JSON asked for: they count nowhere else."
    )
    yield _share("judged_too_long", group, statuses[TOO_LONG], num, "Pairs whose passage does not fit the judge's window.")
    yield _share("judged_engine_error", group, statuses[FAILED], num, "Pairs that the judge's engine failed on.")
    tokens = judgement.num_prompt_tokens, judgement.num_completion_tokens
    yield Measure("judge_prompt_tokens", group, tokens[0], num, "Tokens that the judge read.")
    yield Measure("judge_completion_tokens", group, tokens[1], num, "Tokens that the judge wrote.")


def _words(compared: Sequence[CoveredPassage]) -> Iterator[Measure]:
    group = "Faithful to the passage, by words"
    pairs = [(pair, passage.text) for passage in compared for pair in passage.pairs]
    own = [relevant for passage in compared for relevant in _relevant(passage.pairs, passage.text)]
    others = [relevant for one, other in pairwise([*compared, *compared[:1]]) for relevant in _relevant(one.pairs, other.text)]
    if len(compared) < 2:
        others = []
    support = [_support(pair, text) for pair, text in pairs]
    judged = [value for value in support if value is not None]
    yield _share(
        "relevant",
        group,
        sum(own),
        len(own),
        "Context relevance by words: at least half of the different content words of instruction and response together stand in the passage.",
        is_sample=True,
    )
    yield _share(
        "relevant_by_chance",
        group,
        sum(others),
        len(others),
        "The same with another passage of the sample in the place of the pair's own: what relevance means must be read against it.",
        is_sample=True,
    )
    yield _share(
        "supported",
        group,
        sum(supported(pair.response, text) for pair, text in pairs),
        len(pairs),
        "The response stands in the passage word for word (case and punctuation aside).",
        is_sample=True,
    )
    yield _share(
        "borne_out",
        group,
        sum(value >= MIN_SUPPORT for value in judged),
        len(judged),
        "At least half of the response's different content words stand in the passage; yes, no, options and responses without content words aside.",
        is_sample=True,
    )
    yield _share(
        "grounded",
        group,
        sum(grounded(pair.instruction, pair.response, text) for pair, text in pairs),
        len(pairs),
        "A non-trivial response stands in the same sentence of the passage as most of the instruction's content words. Low for summaries, reasoning and choices, which quote no sentence.",
        is_sample=True,
    )


def _relevant(pairs: Sequence[Pair], text: str) -> list[bool]:
    """Whether each pair that has content words is relevant to the text."""
    words = set(normalise(text).split())
    asked = (content_words(f"{pair.instruction} {pair.response}") for pair in pairs)
    return [len(own & words) >= MIN_RELEVANCE * len(own) for own in asked if own]


def _support(pair: Pair, text: str) -> float | None:
    return support_of(pair, normalise(text).split())  # type: ignore[arg-type]


def _volume(counts: Counts) -> Iterator[Measure]:
    group, passages, pairs = "Volume", counts.num_passages, counts.num_pairs
    yield Measure("passages", group, passages, passages, "Passages of the documents that the pair set chose.")
    yield Measure("texts", group, counts.num_texts, passages, "Augmented texts that they became, those that stayed raw included.")
    yield Measure("pairs", group, pairs, passages, "Valid pairs on them.")
    yield _ratio("pairs_per_passage", group, pairs, passages, "Valid pairs a passage, those without any included.")
    yield _ratio("words_per_pair", group, counts.num_words, pairs, "Words of instruction, options, reasoning and response.")
    tokens = counts.num_tokens
    yield Measure(
        "completion_tokens_per_pair",
        group,
        tokens / pairs if pairs and tokens else None,
        pairs,
        "Generated tokens, rejected ones included, a valid pair; none where no model wrote.",
    )
    yield _ratio(
        "growth",
        group,
        counts.num_augmented_characters,
        counts.num_raw_characters,
        "Characters of the augmented texts, a character of raw text.",
    )


def _validity(counts: Counts, source: Source) -> Iterator[Measure]:
    group, passages, pairs = "Validity and cleanliness", counts.num_passages, counts.num_pairs
    yield _share("passages_with_valid_pair", group, counts.num_with_pair, passages, "Passages with at least one valid pair.")
    yield _share("passages_with_engine_error", group, counts.num_errors, passages, "Passages that the engine failed on.")
    yield _share("rejected", group, counts.num_rejected, pairs + counts.num_rejected, "Pieces of completions that were no valid pair.")
    yield _share("dropped", group, pairs - counts.num_pairs_in_texts, pairs, f"Valid pairs that stand in no text{_reasons(source)}.")
    if source.is_decontaminated:
        meaning = "Valid pairs left out because they overlap an evaluation example."
        yield _share("contaminated_pairs", group, source.dropped_pairs.get(CONTAMINATED, 0), pairs, meaning)
    if source.contaminated_documents is not None:
        meaning = "Documents that clean_corpus left out because they overlap an evaluation example."
        yield _share("contaminated_documents", group, *source.contaminated_documents, meaning)
    yield _share(
        "degenerate",
        group,
        counts.num_degenerate,
        pairs,
        "Pairs that repeat themselves: of six or more word trigrams more than half occur before in the pair.",
    )


def _reasons(source: Source) -> str:
    listed = ", ".join(f"{reason.replace('_', ' ')}: {number:,}" for reason, number in source.dropped_pairs.items())
    return f" ({listed})" if listed else ""


def _form(counts: Counts, categories: Mapping[str, int]) -> Iterator[Measure]:
    group, pairs = "Tasks", counts.num_pairs
    scenarios = counts.scenarios
    options = sum(number for name, number in scenarios.items() if name.startswith("options"))
    reasoning = sum(number for name, number in scenarios.items() if name.endswith("with reasoning"))
    num = sum(categories.values())
    known = [number for name, number in categories.items() if name != OTHER]
    yield Measure(
        "categories",
        group,
        len(known),
        num,
        f"Task categories of {len(CATEGORIES)} told by rules that occur among the pairs of the sampled texts.",
    )
    entropy = -sum(number / num * math.log(number / num) for number in categories.values())
    yield Measure(
        "effective_categories",
        group,
        math.exp(entropy) if num else None,
        num,
        "Exponential of the entropy of their shares: so many categories, equally frequent, would be as diverse.",
    )
    yield _share("pairs_with_options", group, options, pairs, "Pairs with options to choose from.")
    yield _share("pairs_with_reasoning", group, reasoning, pairs, "Pairs whose response reasons before it answers.")


def _diversity(findings: Findings) -> Iterator[Measure]:
    group, counted = "Diversity of the instructions", findings.counts.instructions
    yield _share(
        "duplicate_instructions",
        group,
        counted.share * counted.num_counted,
        counted.num_counted,
        "Instructions that repeat another one of the corpus, case and spacing aside.",
    )
    instructions = [pair.instruction for pair, _ in findings.sampled_pairs[:NUM_DISTINCT]]
    for length in (1, 2):
        yield _share(
            f"distinct_{length}",
            group,
            *distinct(instructions, length),
            f"Different {'words' if length == 1 else 'pairs of neighbouring words'} of all in the first {NUM_DISTINCT:,} instructions of the sampled texts (distinct-{length}).",
        )
    common = openings(instructions).most_common(NUM_OPENINGS)
    yield _share(
        "common_openings",
        group,
        sum(number for _, number in common),
        len(instructions),
        f"Of these instructions, those that begin with one of their {NUM_OPENINGS} most common first two words.",
    )


def _coverage(coverage: Mapping[str, Coverage]) -> Iterator[Measure]:
    group, found = "Coverage of the raw text", list(coverage.values())
    words, terms = sum(own.num_words for own in found), sum(len(own.terms) for own in found)
    places = sum(term.num_passages for own in found for term in own.terms)
    asked_places = sum(term.num_asked for own in found for term in own.terms)
    asked_words, new = sum(own.num_asked_words for own in found), sum(own.num_new_words for own in found)
    yield _share(
        "words_asked",
        group,
        asked_words,
        words,
        "Different content words of the sampled passages that the passage's own pairs use, in any passage; corpora added up.",
    )
    yield _share(
        "terms_asked",
        group,
        sum(own.num_asked_terms for own in found),
        terms,
        "Different terms of the corpora's own that the pairs of a passage use, in any passage.",
    )
    yield _share(
        "terms_asked_where_they_stand",
        group,
        asked_places,
        places,
        "Of all places of such a term in a passage, those where the passage's own pairs use it.",
    )
    yield _share(
        "new_words",
        group,
        new,
        asked_words + new,
        "Of the pairs' different content words, those that stand in no sampled passage of the corpus.",
    )
