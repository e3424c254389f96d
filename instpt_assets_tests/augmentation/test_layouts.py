"""Layouts: shares, independence of the draws, passages verbatim, options consistent."""

import re
from collections import Counter
from collections.abc import Callable

import pytest

from instpt_assets.augmentation.draws import Draws
from instpt_assets.augmentation.layouts import LaidOut, Pair, Shot, lay_out
from instpt_assets.augmentation.options import choices
from instpt_assets.augmentation.phrasings import load_phrasings
from instpt_assets.augmentation.screening import screen
from instpt_assets.recipe.synthesis import Layouts

MODES: dict[str, Layouts] = {
    "classic": Layouts(dialog=0.0, numbered=0.0, inline_few_shot=0.0, next_turn_dialog=0.0, pairs_first=0.0),
    "classic_pairs_first": Layouts(dialog=0.0, numbered=0.0, inline_few_shot=0.0, next_turn_dialog=0.0, pairs_first=1.0),
    "dialog": Layouts(dialog=1.0, numbered=0.0, inline_few_shot=0.0, next_turn_dialog=0.0, pairs_first=0.0),
    "dialog_pairs_first": Layouts(dialog=1.0, numbered=0.0, inline_few_shot=0.0, next_turn_dialog=0.0, pairs_first=1.0),
    "numbered": Layouts(dialog=0.0, numbered=1.0, inline_few_shot=0.0, next_turn_dialog=0.0),
    "inline_few_shot": Layouts(dialog=0.0, numbered=0.0, inline_few_shot=1.0, next_turn_dialog=0.0),
    "next_turn_dialog": Layouts(dialog=0.0, numbered=0.0, inline_few_shot=0.0, next_turn_dialog=1.0),
}
FIRST, SECOND = "  Passage one {0} of {text} 100%.\nIts second line.\n\n", "Passage two, which is longer.\n"


def shots() -> list[Shot]:
    return [
        Shot(
            FIRST,
            [
                Pair("Instruction 1-1?", "response 1-1"),
                Pair("Instruction 1-2 {x}", "option right", ("option right", "option wrong", "option bad")),
                Pair("Instruction 1-3", "response 1-3 {y}", reasoning="reasoning 1-3"),
            ],
        ),
        Shot(
            SECOND,
            [
                Pair("Instruction 2-1", "option yes", ("option no", "option yes"), "reasoning 2-1"),
                Pair("Instruction 2-2", "response 2-2"),
            ],
        ),
    ]


def many(layouts: Layouts, num: int, make: Callable[[], list[Shot]] = shots) -> list[LaidOut]:
    return [lay_out(make(), layouts, key=f"chain-{number}") for number in range(num)]


@pytest.mark.parametrize("mode", MODES)
def test_passages_and_pairs_stand_exactly_once_in_every_layout(mode: str) -> None:
    for laid_out in many(MODES[mode], 150):
        text = laid_out.text
        assert laid_out.layout == mode
        assert laid_out.num_pairs == 5
        assert text.count(FIRST.rstrip()) == 1
        assert text.count(SECOND.rstrip()) == 1
        for part in ("Instruction 1-1?", "Instruction 1-2 {x}", "Instruction 1-3", "Instruction 2-1", "Instruction 2-2"):
            assert text.count(part) == 1
        for part in ("response 1-1", "response 1-3 {y}", "response 2-2", "reasoning 1-3", "reasoning 2-1"):
            assert text.count(part) == 1
        for part in ("option right", "option wrong", "option bad", "option no", "option yes"):
            assert text.count(part) in (1, 2)  # twice where the answer is the option's text
        assert re.search(r"<|\{(?!x\}|y\}|0\}|text\})", text) is None
        if mode.endswith("pairs_first"):
            assert text.index("Instruction 1-3") < text.index("Passage one") < text.index("Instruction 2-1") < text.index("Passage two")
        else:
            assert text.index("Passage one") < text.index("Instruction 1-1") < text.index("Passage two") < text.index("Instruction 2-1")


@pytest.mark.parametrize("num", [2, 3, 4, 5])
def test_every_order_of_options_is_as_likely(num: int) -> None:
    orders = Counter(tuple(Draws(0, f"chain-{number}").order("options/0/0", num)) for number in range(6000))
    possible = 1
    for factor in range(2, num + 1):
        possible *= factor
    assert len(orders) == possible
    expected = 6000 / possible
    assert abs(sum((count - expected) ** 2 / expected for count in orders.values()) - (possible - 1)) < 5 * (2 * (possible - 1)) ** 0.5


def test_many_options_are_still_a_permutation() -> None:
    assert sorted(Draws(0, "a").order("x", 500)) == list(range(500))
    assert Draws(0, "a").order("x", 500)[:60] != list(range(60))


def test_equal_inputs_give_equal_text_whatever_came_before() -> None:
    texts = {key: lay_out(shots(), Layouts(), key=key).text for key in ("a", "b", "c")}
    assert {key: lay_out(shots(), Layouts(), key=key).text for key in ("c", "a", "b")} == texts
    assert len(set(texts.values())) == 3
    assert lay_out(shots(), Layouts(seed=1), key="a").text != texts["a"]


def test_lettered_answers_name_the_item_that_holds_the_answer() -> None:
    options = ("apple", "pear", "plum", "fig")
    kinds, places = Counter[str](), Counter[int]()
    for laid_out in many(MODES["dialog"], 600, lambda: [Shot("P", [Pair("Which?", "pear", options)])]):
        *lines, last = laid_out.text.splitlines()
        items = [line for line in lines if line.endswith(options)]
        answer = last.split(": ", 1)[1]
        assert len(items) == 4
        place = [item.endswith("pear") for item in items].index(True)
        places[place] += 1
        if answer == "pear":
            kinds["text"] += 1
        else:
            kinds["name"] += 1
            assert [re.match(re.escape(answer) + r"(?!\w)", item) is not None for item in items] == [n == place for n in range(4)]
    assert kinds["text"] > 40
    assert kinds["name"] > 400
    assert min(places[place] for place in range(4)) > 0.18 * 600  # shuffled: no place is favoured


def test_an_answer_that_is_no_option_is_for_screening_to_drop() -> None:
    with pytest.raises(ValueError, match="'blue' is none of the options"):
        lay_out([Shot("P", [Pair("Q1", "blue", ("red", "green"))])], MODES["classic"], key="a")


def test_none_of_these_keeps_the_pair() -> None:
    for laid_out in many(MODES["classic"], 50, lambda: [Shot("P", [Pair("Q1", "None of the above.", ("red", "green"))])]):
        assert laid_out.num_pairs == 1
        assert laid_out.text.count("None of the above.") == 1


@pytest.mark.parametrize(
    ("given", "answer", "shown", "right"),
    [
        (("A. red", "B. green", "C. blue"), "B", ["red", "green", "blue"], 1),
        (("A. red", "B. green", "C. blue"), "B. green", ["red", "green", "blue"], 1),
        (("(a) red", "(b) green"), "(b)", ["red", "green"], 1),
        (("1) red", "2) green"), "Green.", ["red", "green"], 1),
        (("A: red", "B: None of these"), "none of these", ["red", "None of these"], 1),
        (("A: red", "B: green"), "none of these", ["red", "green"], -1),
        (("A: red", "B: green"), "D", ["red", "green"], None),
        # No names in order, or nothing that they tell apart: part of the options.
        (("B. subtilis", "E. coli"), "E. coli", ["B. subtilis", "E. coli"], 1),
        (("A. red", "green"), "A", ["A. red", "green"], None),
        (("A. red", "B. red"), "B. red", ["A. red", "B. red"], 1),
    ],
)
def test_names_that_options_bring_along_give_way_to_those_of_the_text(
    given: tuple[str, ...], answer: str, shown: list[str], right: int | None
) -> None:
    pair = Pair("Which?", answer, given)
    assert choices(given, answer, load_phrasings().none_of_these) == (shown, right)
    assert (screen([pair]) == [None]) == (right is not None)


def test_no_option_is_named_twice() -> None:
    for laid_out in many(MODES["dialog"], 60, lambda: [Shot("P", [Pair("Which?", "B", ("A. red", "B. green"))])]):
        assert "A. red" not in laid_out.text.replace("\nA. red", "") and "B. green" not in laid_out.text.replace("\nB. green", "")
        assert laid_out.text.count("green") + laid_out.text.count("red") in (2, 3)


def test_options_that_speak_of_the_others_stay_last() -> None:
    options = ("All of the above", "red", "green", "blue")
    for laid_out in many(MODES["classic"], 60, lambda: [Shot("P", [Pair("Q1", "red", options)])]):
        assert max(laid_out.text.index(option) for option in options) == laid_out.text.index("All of the above")


def test_shots_without_pairs_stand_bare() -> None:
    first, _ = shots()
    raw = lay_out([Shot(FIRST, []), Shot(SECOND, [])], Layouts(), key="a")
    assert raw == LaidOut(FIRST + SECOND, "raw", 0)
    mixed = lay_out([first, Shot(SECOND, [])], MODES["classic"], key="a")
    assert mixed.text.endswith("\n\n" + SECOND.rstrip())
    assert mixed.num_pairs == 3


def test_later_shots_keep_the_pattern_of_the_first() -> None:
    def make() -> list[Shot]:
        return [Shot(f"Passage {n}", [Pair(f"Q{n}a", f"R{n}a"), Pair(f"Q{n}b", f"R{n}b")]) for n in (1, 2)]

    for layouts in MODES.values():
        for laid_out in many(layouts, 30, make):
            anonymous = re.sub(r"Passage \d|[QR]\d[ab]", "X", laid_out.text)
            half = len(anonymous) // 2
            assert anonymous[: half - 1] == anonymous[half + 1 :]
