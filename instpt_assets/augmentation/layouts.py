"""Layouts: a chain's shots (passages and their pairs) become one pre-training text (PAPER.md section 3).

One layout and one set of phrasings are drawn for a text and hold for all its shots, so that the later shots continue the pattern of
the earlier ones. Passages stand verbatim (blank space behind them apart). Options are shuffled for each pair; where their names count
("B."), the answer is the name.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, TypeVar

from instpt_assets.augmentation.draws import Draws
from instpt_assets.augmentation.options import choices, closing_last, labels
from instpt_assets.augmentation.phrasings import Phrasings, load_phrasings
from instpt_assets.recipe.synthesis import Layouts

T = TypeVar("T")
RAW = "raw"
"""The layout of a text without any pair."""
PAIRS_FIRST = "_pairs_first"
"""What a layout's name ends in where the pairs stand before the passage."""


class Pair(NamedTuple):
    """An instruction and its response."""

    instruction: str
    response: str
    options: Sequence[str] = ()
    reasoning: str | None = None


class Shot(NamedTuple):
    """A passage and its pairs."""

    text: str
    pairs: Sequence[Pair]


class LaidOut(NamedTuple):
    """A text."""

    text: str
    layout: str
    """Its layout's name, `raw` if no pair is left."""
    num_pairs: int
    """Pairs that stand in the text."""


class _Item(NamedTuple):
    """A pair ready to be phrased: options as one block, the answer as it is to be written."""

    question: str
    options: str
    reasoning: str
    answer: str


class _Style:
    """The phrasings of one text, each drawn when it is first needed (which, being independent draws, changes no other)."""

    __slots__ = ("_draws", "_phrasings", "_picked")

    def __init__(self, draws: Draws, phrasings: Phrasings) -> None:
        self._draws, self._phrasings = draws, phrasings
        self._picked: dict[str, Any] = {}

    def _pick(self, family: str, entries: Sequence[T]) -> T:
        picked: T | None = self._picked.get(family)
        if picked is None:
            picked = self._picked[family] = entries[self._draws.pick(family, len(entries))]
        return picked

    def text_lead_in(self) -> str:
        return self._pick("text_lead_ins", self._phrasings.text_lead_ins)

    def comprehension_lead_in(self) -> str:
        return self._pick("comprehension_lead_ins", self._phrasings.comprehension_lead_ins)

    def dialog_lead_in(self) -> str:
        return self._pick("dialog_lead_ins", self._phrasings.dialog_lead_ins)

    def pairs_first_lead_in(self) -> str:
        return self._pick("pairs_first_lead_ins", self._phrasings.pairs_first_lead_ins)

    def item(self, pair: Pair, shot: int, number: int) -> _Item:
        """The pair (of a shot, by its number there) with its options laid out."""
        question, answer, given, reasoning = pair
        options = ""
        answer = answer.strip()
        if given:
            different, right = choices(given, answer, self._phrasings.none_of_these)
            if right is None:
                raise ValueError(f"{answer!r} is none of the options {different}: such pairs are for `screen` to drop")
            if len(different) > 1:
                options, answer = self._options(different, right, answer, f"options/{shot}/{number}")
        return _Item(question.strip(), options, reasoning.strip() if reasoning else "", answer)

    def _options(self, options: Sequence[str], right: int, answer: str, draw: str) -> tuple[str, str]:
        """The shuffled options as a block, and the answer; `right` is the place of the answer, -1 if no option is right."""
        order = closing_last(self._draws.order(draw, len(options)), options)
        name = self._pick("option_item_names", self._phrasings.option_item_names)
        names = labels(name, len(options))
        items = "\n".join([f"{own.shown} {options[old]}" for own, old in zip(names, order, strict=True)])
        if right >= 0:
            answer = names[order.index(right)].called if "{" in name else options[right]
        return self._pick("option_lead_ins", self._phrasings.option_lead_ins).format(items=items), answer

    # A pair, phrased

    def question_answer(self, item: _Item) -> str:
        question, options, reasoning, answer = item
        if options:
            family = "question_answer_options_reasoning" if reasoning else "question_answer_options"
        else:
            family = "question_answer_reasoning" if reasoning else "question_answer"
        pattern: str = self._pick(family, getattr(self._phrasings, family))
        return pattern.format(question=question, options=options, reasoning=reasoning, answer=answer)

    def question(self, item: _Item) -> str:
        """The question alone, its options below it."""
        return f"{item.question}\n{item.options}" if item.options else item.question

    def answer(self, item: _Item) -> str:
        """The answer alone, behind its reasoning."""
        if not item.reasoning:
            return item.answer
        conclusion = self._pick("conclusions", self._phrasings.conclusions)
        return f"{item.reasoning}\n{conclusion.format(answer=item.answer)}"

    # The pairs of a shot

    def classic(self, items: Sequence[_Item]) -> str:
        return "\n\n".join([self.question_answer(item) for item in items])

    def dialog(self, items: Iterable[_Item]) -> str:
        asker, answerer = self._pick("dialog_names", self._phrasings.dialog_names)
        return "\n".join([f"{asker}: {self.question(item)}\n{answerer}: {self.answer(item)}" for item in items])

    def numbered(self, items: Sequence[_Item]) -> str:
        name = self._pick("question_item_names", self._phrasings.question_item_names)
        names = labels(name, len(items))
        return self._pick("numbered_questions", self._phrasings.numbered_questions).format(
            questions="\n".join([f"{own.shown} {self.question(item)}" for own, item in zip(names, items, strict=True)]),
            answers="\n".join([f"{own.shown} {self.answer(item)}" for own, item in zip(names, items, strict=True)]),
        )

    def inline_few_shot(self, items: Sequence[_Item]) -> str:
        pattern = self._pick("inline_few_shot", self._phrasings.inline_few_shot)
        return pattern.format(examples=self.classic(items[:-1]), target=self.question_answer(items[-1]))

    def next_turn_dialog(self, items: Sequence[_Item]) -> str:
        asker, answerer = self._pick("dialog_names", self._phrasings.dialog_names)
        dialog = f"{self.dialog(items[:-1])}\n{asker}: {self.question(items[-1])}"
        pattern = self._pick("next_turn", self._phrasings.next_turn)
        return pattern.format(dialog=dialog, turn=self.answer(items[-1]), speaker=answerer)


def lay_out(shots: Sequence[Shot], layouts: Layouts, *, key: str, phrasings: Phrasings | None = None) -> LaidOut:
    """One text of a chain's shots.

    A shot without a pair stands as its bare passage; shots without any pair at all are their passages, joined as they were.

    Args:
        shots: the chain's passages with their pairs, in order.
        layouts: probabilities and seed.
        key: names the text; all draws derive from it and the seed.
        phrasings: by default those that come with the package.

    Raises:
        ValueError: an answer is none of its pair's options.
    """
    num_pairs = sum([len(pairs) for _, pairs in shots])
    if not num_pairs:
        return LaidOut("".join([text for text, _ in shots]), RAW, 0)
    draws = Draws(layouts.seed, key)
    style = _Style(draws, phrasings or load_phrasings())
    ready = [(text, [style.item(pair, place, number) for number, pair in enumerate(pairs)]) for place, (text, pairs) in enumerate(shots)]
    layout = _layout(draws.share("layout"), layouts, all(len(items) >= 2 for _, items in ready))
    render: Callable[[Sequence[_Item]], str] = getattr(style, layout)
    pairs_first = layout in ("classic", "dialog") and draws.share("pairs_first") < layouts.pairs_first
    parts: list[str] = []
    for text, items in ready:
        text = text.rstrip()
        if not items:
            parts.append(text)
        elif pairs_first:
            parts.append(style.pairs_first_lead_in().format(pairs=render(items), text=text))
        else:
            parts.append(style.text_lead_in().format(text=text))
            if lead_in := _lead_in(style, layout):
                parts.append(lead_in)
            parts.append(render(items))
    return LaidOut("\n\n".join(parts), layout + PAIRS_FIRST if pairs_first else layout, num_pairs)


def _layout(share: float, layouts: Layouts, several: bool) -> str:
    """The layout on which a share in [0, 1) falls; `several`: every shot has two pairs or more."""
    names = ("dialog", "numbered", "inline_few_shot", "next_turn_dialog") if several else ("dialog",)
    for name in names:
        share -= getattr(layouts, name)
        if share < 0:
            return name
    return "classic"


def _lead_in(style: _Style, layout: str) -> str:
    """What leads from passage to pairs; the other layouts' own patterns do."""
    if layout == "classic":
        return style.comprehension_lead_in()
    return style.dialog_lead_in() if layout == "dialog" else ""
