"""The quality page in short, as Markdown for the UI's preview, which shows no HTML."""

from collections.abc import Mapping, Sequence

from instpt_assets.augmentation.layouts import RAW
from instpt_assets.augmentation.quality_charts import readable
from instpt_assets.augmentation.quality_counts import Counts
from instpt_assets.augmentation.quality_examples import SampledText, example
from instpt_assets.augmentation.quality_measures import Measure

MAX_CHARACTERS = 30_000
"""Events are kept in a database: examples that do not fit are left to the page."""
_NUM_EXAMPLES, _PASSAGE_CHARACTERS, _ADDED_CHARACTERS = 5, 280, 1200
_PASSAGE_SIGN = "[passage]"
_NUM_CATEGORIES = 12
_NUM_ATTRIBUTIONS = 3


def markdown(
    title: str,
    lead: str,
    headline: Sequence[Measure],
    measures: Sequence[Measure],
    counts: Counts,
    categories: Mapping[str, int],
    sampled: Sequence[SampledText],
) -> str:
    """The headline, all measures, and some texts beside their passages."""
    lines = [f"**{_cell(title)}.** {_cell(lead)} The whole page is `quality.html` beside this file.", ""]
    lines += [
        f"| {' | '.join(readable(m.metric) for m in headline)} |",
        "|" + "---|" * len(headline),
        f"| {' | '.join(f'**{m.shown}**' for m in headline)} |",
        "",
    ]
    lines += ["| measure | value | 95 % | of | meaning |", "|---|--:|--:|--:|---|"]
    lines += [f"| {readable(m.metric)} | {m.shown} | {m.shown_interval} | {m.num_examples:,} | {_cell(m.meaning)} |" for m in measures]
    layouts = dict(sorted(counts.layouts.items(), key=lambda item: -item[1]))
    lines += ["", f"Texts by layout: {_listed(layouts) or 'none'}{'' if layouts.get(RAW) else '; none is raw'}.", ""]
    lines += [f"Pairs of the sampled texts by category: {_listed(dict(list(categories.items())[:_NUM_CATEGORIES])) or 'none'}.", ""]
    lines += (
        ["Texts drawn by hash, not picked, as far as there is room; long passages and additions are cut here.", ""]
        if sampled
        else ["No text has a pair.", ""]
    )
    num_characters = sum(map(len, lines))
    for number, row in enumerate(sampled[:_NUM_EXAMPLES], 1):
        shown = _example(number, row)
        num_characters += len(shown)
        if num_characters > MAX_CHARACTERS:
            break
        lines += [shown, ""]
    return "\n".join(lines)


def _listed(numbers: Mapping[str, int]) -> str:
    return ", ".join(f"{readable(name)} {number:,}" for name, number in numbers.items())


def _example(number: int, row: SampledText) -> str:
    """A row a passage: the passage, and beside it what was added to it."""
    shown = example(row, raw_characters=_PASSAGE_CHARACTERS, passage_characters=0, added_characters=_ADDED_CHARACTERS)
    heading = f"{number}. {readable(shown.layout)}, {shown.num_pairs} pair{'s' * (shown.num_pairs != 1)}: raw text"
    lines = [f"| {_cell(heading)} | added |", "|---|---|"]
    lines += [f"| {_cell(r.raw)} | {_cell(f'{r.before.rstrip()} {_PASSAGE_SIGN} {r.behind.lstrip()}')} |" for r in shown.rows]
    return "\n".join([*lines, "", _cell("; ".join(shown.attributions[:_NUM_ATTRIBUTIONS]))])


def _cell(text: str) -> str:
    """Text that stands in a cell of a Markdown table as it is."""
    for sign in "&<>|*_`#[]\\~$":
        text = text.replace(sign, f"\0{ord(sign)};")
    return text.strip().replace("\0", "&#").replace("\n", "<br>")
