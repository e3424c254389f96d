"""Layouts: a chain's shots (passages and their pairs) become one pre-training text (PAPER.md section 3).

One layout and one set of phrasings are drawn for a text and hold for all its shots, so that the later shots continue the pattern of
the earlier ones. Passages stand verbatim (blank space behind them apart). Options are shuffled for each pair; where their names count
("B."), the answer is the name.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar

from instpt_assets.augmentation.draws import Draws
from instpt_assets.augmentation.phrasings import Phrasings, load_phrasings, normalized
from instpt_assets.recipe.synthesis import Layouts

T = TypeVar("T")
RAW = "raw"
"""The layout of a text without any pair."""
PAIRS_FIRST = "_pairs_first"
"""What a layout's name ends in where the pairs stand before the passage."""
ANSWER_IS_NO_OPTION = "answer_is_no_option"
"""Why a pair is dropped: its answer is none of its options, nor says that none is right."""

# "All of the above" and the like speak of the options before them, so they stay behind them.
_CLOSING = re.compile(r"(?:all|any|both|each|neither|none|two) of (?:the|these|those|them)\b", re.IGNORECASE)

_ROMAN = tuple(zip((100, 90, 50, 40, 10, 9, 5, 4, 1), ("c", "xc", "l", "xl", "x", "ix", "v", "iv", "i"), strict=True))


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
    """A text and what became of the pairs."""

    text: str
    layout: str
    """Its layout's name, `raw` if no pair is left."""
    num_pairs: int
    """Pairs that stand in the text."""
    dropped: Mapping[str, int]
    """Pairs that do not, by reason."""


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

    def item(self, pair: Pair, shot: int, number: int) -> _Item | None:
        """The pair (of a shot, by its number there) with its options laid out, or None if its answer is no option."""
        question, answer, given, reasoning = pair
        options = ""
        answer = answer.strip()
        if given:
            distinct = list(dict.fromkeys([option.strip() for option in given]))
            right = _find(answer, distinct, self._phrasings.none_of_these)
            if right is None:
                return None
            if len(distinct) > 1:
                options, answer = self._options(distinct, right, answer, f"options/{shot}/{number}")
        return _Item(question.strip(), options, reasoning.strip() if reasoning else "", answer)

    def _options(self, options: Sequence[str], right: int, answer: str, draw: str) -> tuple[str, str]:
        """The shuffled options as a block, and the answer; `right` is the place of the answer, -1 if no option is right."""
        order = self._draws.order(draw, len(options))
        if any(map(_CLOSING.match, options)):
            order.sort(key=lambda option: _CLOSING.match(options[option]) is not None)
        name = self._pick("option_item_names", self._phrasings.option_item_names)
        items = "\n".join([f"{_label(name, new)[0]} {options[old]}" for new, old in enumerate(order)])
        if right >= 0:
            answer = _label(name, order.index(right))[1] if "{" in name else options[right]
        return self._pick("option_lead_ins", self._phrasings.option_lead_ins).format(items=items), answer

    # A pair, phrased

    def question_answer(self, item: _Item) -> str:
        phrasings = self._phrasings
        question, options, reasoning, answer = item
        if options and reasoning:
            pattern = self._pick("question_answer_options_reasoning", phrasings.question_answer_options_reasoning)
        elif options:
            pattern = self._pick("question_answer_options", phrasings.question_answer_options)
        elif reasoning:
            pattern = self._pick("question_answer_reasoning", phrasings.question_answer_reasoning)
        else:
            pattern = self._pick("question_answer", phrasings.question_answer)
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
        labels = [_label(name, place)[0] for place in range(len(items))]
        return self._pick("numbered_questions", self._phrasings.numbered_questions).format(
            questions="\n".join([f"{label} {self.question(item)}" for label, item in zip(labels, items, strict=True)]),
            answers="\n".join([f"{label} {self.answer(item)}" for label, item in zip(labels, items, strict=True)]),
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
    """
    draws = Draws(layouts.seed, key)
    style = _Style(draws, phrasings or load_phrasings())
    ready: list[tuple[str, list[_Item]]] = []
    num_given = num_pairs = 0
    for place, shot in enumerate(shots):
        items = [item for number, pair in enumerate(shot.pairs) if (item := style.item(pair, place, number)) is not None]
        ready.append((shot.text, items))
        num_given += len(shot.pairs)
        num_pairs += len(items)
    dropped = {ANSWER_IS_NO_OPTION: num_given - num_pairs} if num_given > num_pairs else {}
    if not num_pairs:
        return LaidOut("".join([shot.text for shot in shots]), RAW, 0, dropped)
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
    return LaidOut("\n\n".join(parts), layout + PAIRS_FIRST if pairs_first else layout, num_pairs, dropped)


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


def _find(answer: str, options: Sequence[str], none_of_these: frozenset[str]) -> int | None:
    """The place of the option that the answer is, -1 if the answer says that none is right, None if it is something else."""
    if answer in options:
        return options.index(answer)
    wanted = normalized(answer)
    forms = [normalized(option) for option in options]
    if wanted in forms:
        return forms.index(wanted)
    if wanted not in none_of_these:
        return None
    return next((place for place, form in enumerate(forms) if form in none_of_these), -1)


@lru_cache(maxsize=4096)
def _label(name: str, place: int) -> tuple[str, str]:
    """An item's name at a place from 0, and the name as an answer calls it ("A." is called "A", "(A)" as it is)."""
    letters, rest = "", place + 1
    while rest:
        rest, digit = divmod(rest - 1, 26)
        letters = chr(ord("a") + digit) + letters
    roman, rest = "", place + 1
    for value, sign in _ROMAN:
        times, rest = divmod(rest, value)
        roman += sign * times
    label = name.format(number=place + 1, capital=letters.upper(), letter=letters, Roman=roman.upper(), roman=roman)
    return label, label if label[-1:] == "]" or "(" in label else label.rstrip(" .:)-=")
