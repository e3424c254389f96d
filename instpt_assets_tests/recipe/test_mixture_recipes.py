"""Mixtures in a recipe: each document stands once in an arm, amounts add up, and an arm is about the shards of its corpora alone."""

from typing import Any

import pytest
from pydantic import ValidationError

from instpt_assets.recipe.arms import Arm, Component


def component(kind: str, **fields: Any) -> dict[str, Any]:
    return {"component": kind, **fields}


CORPUS, TUNING = component("corpus"), component("tuning")
AUGMENTED = component("augmented", pair_set="synthesized")
HALF = {"ratio": 0.5}


@pytest.mark.parametrize(
    ("mixture", "message"),
    [
        ([CORPUS, TUNING], "components corpus, tuning have neither ratio nor repetition"),
        ([component("corpus", repetition=1.0), TUNING | {"repetition": 2.0}], "exactly one component must leave out ratio and repetition"),
        ([CORPUS | HALF, TUNING | {"ratio": 0.4}], "ratios add up to 0.9, not 1"),
        ([CORPUS, TUNING | {"ratio": 1.0}], "ratios add up to 1 and leave nothing to 'corpus'"),
        ([TUNING | HALF, TUNING | HALF], "mixture.0 and mixture.1: component 'tuning' stands there twice"),
        ([component("raw", pair_set="synthesized")], "pair_set goes with component 'corpus' and 'augmented', not 'raw'"),
        ([component("augmented")], "component 'augmented' needs a pair_set"),
        ([component("general", corpora=("news",))], "corpora goes with components 'corpus', 'raw' and 'augmented', not 'general'"),
        ([component("raw", corpora=())], "name each corpus once, and at least one"),
        ([component("raw", corpora=("news", "news"))], "name each corpus once"),
        ([component("tuning", repetition=4.0, max_repetition=3.0)], "repetition 4 is more than max_repetition 3"),
        ([CORPUS | HALF, component("raw", **HALF)], "mixture.0.corpora (all) and mixture.1.corpora (all) overlap: 'corpus' and 'raw'"),
        ([CORPUS | HALF, AUGMENTED | HALF], "overlap: 'corpus' and 'augmented (synthesized)' would hold the same documents"),
        (
            [CORPUS | HALF | {"corpora": ("news", "web")}, CORPUS | HALF | {"corpora": ("web",)}],
            "mixture.0.corpora (news, web) and mixture.1.corpora (web) overlap",
        ),
        ([AUGMENTED | HALF, component("augmented", pair_set="rule_based", **HALF)], "overlap"),
    ],
)
def test_a_mixture_in_which_something_stands_twice_or_does_not_add_up_is_refused(mixture: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(ValidationError) as error:
        Arm.model_validate({"mixture": tuple(mixture)})
    assert message in str(error.value)


def test_shards_that_no_component_takes_and_components_without_a_shard_are_refused() -> None:
    news = component("raw", corpora=("news",))
    with pytest.raises(ValidationError, match="shards: no component's corpora hold web--0: take them off the list"):
        Arm.model_validate({"mixture": (news,), "shards": ("news--0", "web--0")})
    both = (news | HALF, component("raw", corpora=("web",), **HALF))
    with pytest.raises(ValidationError, match="shards: none belongs to the corpora of 'raw of web'"):
        Arm.model_validate({"mixture": both, "shards": ("news--0",)})


def test_an_arm_is_about_the_shards_of_its_corpora() -> None:
    arm = Arm.model_validate(
        {
            "mixture": (
                component("corpus", pair_set="synthesized", corpora=("news",)),
                component("augmented", pair_set="rule_based", corpora=("papers",), ratio=0.2),
                component("raw", corpora=("papers", "web"), ratio=0.3),
            )
        }
    )
    assert arm.shard_assets(held_out=False) == {
        "tokenized_raw": ("news", "papers", "web"),
        "synthesized/tokenized_augmented": ("news",),
        "rule_based/tokenized_augmented": ("papers",),
    }
    assert arm.pair_sets == ("synthesized", "rule_based")
    texts = Arm.model_validate({"mixture": (AUGMENTED | {"corpora": ("news",)},)})
    assert texts.shard_assets(held_out=False) == {"synthesized/tokenized_augmented": ("news",)}
    # Documents are held out of raw ones: of the arm's corpora, or, where it has none, of all.
    assert texts.shard_assets(held_out=True)["tokenized_raw"] == ("news",)
    assert Arm.model_validate({"mixture": (TUNING,)}).shard_assets(held_out=True) == {"tokenized_raw": None}
    assert Arm.model_validate({"mixture": (TUNING,)}).shard_assets(held_out=False) == {}


def test_a_component_says_what_it_is() -> None:
    assert Component(component="corpus").label == "corpus"
    assert Component(component="augmented", pair_set="synthesized", corpora=("news", "web")).label == "augmented (synthesized) of news, web"


def test_components_as_they_were_are_hashed_as_they_were() -> None:
    fields = {"component": "corpus", "pair_set": None, "ratio": None, "repetition": None, "max_repetition": 100.0}
    assert Component(component="corpus").hashed() == fields
    assert Component(component="corpus", corpora=("news",)).hashed() == {**fields, "corpora": ["news"]}
