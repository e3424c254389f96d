"""What is drawn for the texts, told from the texts themselves: shares are the recipe's, draws are independent, every phrasing is reached."""

import hashlib
import itertools
import os
import re
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest
from scipy.stats import chi2_contingency, chisquare

from instpt_assets.augmentation.layouts import Pair, Shot, lay_out
from instpt_assets.augmentation.phrasings import FAMILIES, Phrasings, load_phrasings
from instpt_assets.recipe.synthesis import Layouts

NUM = 12_000
P = 0.001
SHOTS = [
    Shot(
        f"Passage {n}.",
        [
            Pair("I1", "r1"),
            Pair("I2", "yes", ("yes", "no", "maybe")),
            Pair("I3", "r3", reasoning="since"),
            Pair("I4", "no", ("yes", "no"), "so"),
        ],
    )
    for n in range(2)
]
EVEN = Layouts(dialog=0.2, numbered=0.2, inline_few_shot=0.2, next_turn_dialog=0.2, pairs_first=0.5)
_TAG = re.compile(r"⟦(\w+):(\d+)⟧")


def tagged() -> Phrasings:
    """As many phrasings as there are, each of which says in the text which one it is."""
    families: dict[str, object] = {}
    for name, number in load_phrasings().counts().items():
        family = FAMILIES[name]
        body = " ".join(f"{{{placeholder}}}" for placeholder in sorted(family.required)) + (
            " {number}." if family.numeral is not False else ""
        )
        entries = [f"⟦{name}:{place}⟧ {body}" for place in range(number)]
        families[name] = tuple((entry, "answerer") for entry in entries) if family.pairs else tuple(entries)
    return Phrasings(**{**families, "none_of_these": frozenset({"none"})})


@pytest.fixture(scope="module")
def drawn() -> dict[str, np.ndarray]:
    """For each family which of its entries each text has, -1 where it needs none; and which layout."""
    phrasings = tagged()
    layouts: dict[str, int] = {}
    found = {name: np.full(NUM, -1) for name in [*phrasings.counts(), "layout"]}
    for number in range(NUM):
        laid_out = lay_out(SHOTS, EVEN, key=f"chain-{number}", phrasings=phrasings)
        found["layout"][number] = layouts.setdefault(laid_out.layout, len(layouts))
        for name, entries in itertools.groupby(sorted(set(_TAG.findall(laid_out.text))), key=lambda tag: tag[0]):
            ((_, entry),) = entries  # one for all the text's shots
            found[name][number] = int(entry)
    return found


@pytest.mark.parametrize(
    ("several", "layouts"), [(True, Layouts()), (True, EVEN), (False, Layouts(dialog=0.3, numbered=0.2, pairs_first=0.1))]
)
def test_layout_shares_are_the_recipes(several: bool, layouts: Layouts) -> None:
    shots = [Shot("P", [Pair("I1", "r1"), Pair("I2", "r2")]), Shot("P", [Pair("I1", "r1"), Pair("I2", "r2")][: 2 if several else 1])]
    num = 20_000
    names = ["dialog", "numbered", "inline_few_shot", "next_turn_dialog"] if several else ["dialog"]
    shares = {name: getattr(layouts, name) for name in names}
    shares["classic"] = 1 - sum(shares.values())
    for name in ("classic", "dialog"):
        shares[f"{name}_pairs_first"] = shares[name] * layouts.pairs_first
        shares[name] -= shares[f"{name}_pairs_first"]
    counts = dict.fromkeys(shares, 0)
    for number in range(num):
        counts[lay_out(shots, layouts, key=f"chain-{number}").layout] += 1
    assert chisquare([counts[name] for name in shares], [num * share for share in shares.values()]).pvalue > P


def test_every_phrasing_is_reached_and_as_often_as_the_others(drawn: dict[str, np.ndarray]) -> None:
    for name, number in load_phrasings().counts().items():
        if name == "none_of_these":  # is recognized, never drawn
            continue
        counts = np.bincount(drawn[name][drawn[name] >= 0], minlength=number)
        assert (len(counts), counts.min() > 0) == (number, True), name
        assert chisquare(counts).pvalue > P / len(FAMILIES), name


def test_draws_of_different_families_are_independent(drawn: dict[str, np.ndarray]) -> None:
    tables = list(_contingency_tables(drawn))
    assert len(tables) > 500
    for pair, table in tables:
        assert chi2_contingency(table).pvalue > P / len(tables), pair


def _contingency_tables(drawn: dict[str, np.ndarray]) -> Iterator[tuple[tuple[str, str, int], np.ndarray]]:
    """For every two families that stand in the same texts how often each two entries do, every k-th entries taken together.

    Draws from the same bits agree in what divides both families' sizes, which may be any small number: hence several k.
    """
    for first, second in itertools.combinations(sorted(drawn), 2):
        both = (drawn[first] >= 0) & (drawn[second] >= 0)
        if both.sum() > 1000:
            for k in range(2, 9):
                table = np.zeros((k, k), int)
                np.add.at(table, (drawn[first][both] % k, drawn[second][both] % k), 1)
                table = table[table.any(axis=1)][:, table.any(axis=0)]
                if min(table.shape) > 1:
                    yield (first, second, k), table


def texts_digest(numbers: list[int]) -> str:
    """Of the texts of these numbers, whatever the order in which they are made."""
    texts = {number: lay_out(SHOTS, Layouts(), key=f"chain-{number}").text for number in numbers}
    return hashlib.sha256("\0".join(texts[number] for number in sorted(texts)).encode()).hexdigest()


def test_draws_are_the_same_in_any_order_and_process() -> None:
    numbers = list(range(300))
    digest = texts_digest(numbers)
    assert texts_digest(numbers[::-1]) == digest
    script = "import test_draws; print(test_draws.texts_digest([*range(1, 300, 2), *range(0, 300, 2)]))"
    environment = os.environ | {"PYTHONPATH": os.path.dirname(__file__), "PYTHONHASHSEED": "7"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
    assert done.stdout.strip() == digest, done.stderr
