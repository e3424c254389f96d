"""Learning rates over the steps, and recipes that contradict themselves."""

import math

import pytest
from pydantic import ValidationError

from instpt_assets.recipe.training import Optimization
from instpt_assets.training.optimizer import learning_rate

PEAK = 0.01


def recipe(**changes) -> Optimization:
    fields = {"token_budget": 100 * 64, "batch_tokens": 64, "learning_rate": PEAK, "warmup_steps": 10, "final_learning_rate_fraction": 0.2}
    return Optimization(**{**fields, **changes})


def rates(optimization: Optimization) -> list[float]:
    return [learning_rate(step, optimization) for step in range(optimization.num_steps)]


def test_cosine_warms_up_and_ends_at_its_fraction():
    found = rates(recipe())
    assert found[0] == pytest.approx(PEAK / 10) and found[9] == found[10] == pytest.approx(PEAK)
    assert found[-1] == pytest.approx(0.2 * PEAK)
    assert found[10:] == sorted(found[10:], reverse=True)
    assert found[10 + 45] == pytest.approx((PEAK + 0.2 * PEAK) / 2, rel=0.02)


def test_warmup_stable_decay_stays_at_the_peak_until_the_decay():
    found = rates(recipe(schedule="warmup_stable_decay", decay_fraction=0.25, decay_shape="linear"))
    assert found[0] == pytest.approx(PEAK / 10) and found[9:75] == [PEAK] * 66
    assert found[75:] == pytest.approx([PEAK * (1 - 0.8 * (step + 1) / 25) for step in range(25)])
    shaped = rates(recipe(schedule="warmup_stable_decay", decay_fraction=0.25))
    assert shaped[75:] == pytest.approx([PEAK * (1 - 0.8 * math.sqrt((step + 1) / 25)) for step in range(25)])
    assert shaped[-1] == pytest.approx(0.2 * PEAK) and shaped[:75] == found[:75]
    assert rates(recipe(schedule="warmup_stable_decay"))[89:91] == pytest.approx([PEAK, PEAK * (1 - 0.8 * math.sqrt(0.1))])


def test_constant_stays_at_the_peak():
    found = rates(recipe(schedule="constant", final_learning_rate_fraction=1.0))
    assert found[9:] == [PEAK] * 91


@pytest.mark.parametrize("schedule", ["warmup_stable_decay", "constant"])
def test_stable_steps_do_not_depend_on_the_budget(schedule):
    small, large = (recipe(schedule=schedule, token_budget=steps * 64, final_learning_rate_fraction=1.0) for steps in (100, 150))
    assert small.stable_steps == (90 if schedule == "warmup_stable_decay" else 100)
    assert rates(small)[: small.stable_steps] == rates(large)[: small.stable_steps]
    assert recipe().stable_steps == 10 and rates(recipe())[:10] == rates(recipe(token_budget=150 * 64))[:10]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"decay_fraction": 0.2}, "decay_fraction goes with schedule 'warmup_stable_decay', not 'cosine'"),
        ({"schedule": "constant", "final_learning_rate_fraction": 0.1, "decay_shape": "linear"}, "decay_shape goes with"),
        ({"schedule": "constant"}, "final_learning_rate_fraction: schedule 'constant' ends at the peak"),
        (
            {"schedule": "warmup_stable_decay", "decay_fraction": 0.95},
            "decay_fraction: 95 steps of decay and warmup_steps 10 are more than 100",
        ),
        ({"extended_from": (50 * 64, 20 * 64)}, r"extended_from \[3200, 1280\] must ascend"),
        ({"extended_from": (100 * 64,)}, "must ascend and end below token_budget 6400"),
        ({"extended_from": (100 * 64 - 1,)}, "each at least a step"),
    ],
)
def test_contradictions_name_the_field(changes, message):
    with pytest.raises(ValidationError, match=message):
        recipe(**changes)


def test_new_fields_at_their_defaults_change_no_identity():
    assert set(recipe().hashed()) == {
        "token_budget", "batch_tokens", "learning_rate", "final_learning_rate_fraction", "warmup_steps", "weight_decay", "beta1", "beta2",
        "clip_norm", "dtype",
    }  # fmt: skip
    assert recipe(extended_from=(64,), schedule="warmup_stable_decay").hashed()["extended_from"] == [64]
