"""Means, standard errors and differences against values worked out by hand."""

import math

import pytest

from instpt_assets.evaluation.statistics import Estimate, difference, over_seeds, pair_examples, weighted_mean


def test_mean_of_equal_weights_has_the_textbook_standard_error() -> None:
    # mean 2; deviations -1, 1, 0, 0: sample variance 2/3; error sqrt(2/3/4)
    estimate = weighted_mean([1.0, 3.0, 2.0, 2.0])
    assert estimate.value == 2.0
    assert estimate.stderr == pytest.approx(math.sqrt(1 / 6))


def test_weighted_mean_is_a_ratio_of_sums() -> None:
    # (1*2 + 3*4) / 4 = 3.5; residuals 1*(2-3.5) = -1.5 and 3*(4-3.5) = 1.5: sqrt(2/1 * 4.5) / 4
    estimate = weighted_mean([2.0, 4.0], [1.0, 3.0])
    assert estimate.value == 3.5
    assert estimate.stderr == pytest.approx(0.75)


def test_one_example_has_no_standard_error() -> None:
    assert weighted_mean([0.5]) == Estimate(0.5, None)


def test_no_examples_have_no_mean() -> None:
    with pytest.raises(ValueError, match="no mean of 0 scores"):
        weighted_mean([])


def test_seeds_and_examples_add_their_variances() -> None:
    # values 0.4, 0.6: s^2 = 0.02, s^2 / 2 = 0.01; errors 0.3, 0.4: mean square 0.125
    estimate = over_seeds([Estimate(0.4, 0.3), Estimate(0.6, 0.4)])
    assert estimate.value == pytest.approx(0.5)
    assert estimate.stderr == pytest.approx(math.sqrt(0.135))


def test_one_seed_keeps_its_error_over_examples() -> None:
    assert over_seeds([Estimate(0.4, 0.3)]) == Estimate(0.4, pytest.approx(0.3))
    assert over_seeds([Estimate(0.4, None)]) == Estimate(0.4, None)


def test_difference_without_examples_takes_the_arms_for_independent() -> None:
    assert difference([Estimate(0.7, 0.3)], [Estimate(0.5, 0.4)]) == Estimate(pytest.approx(0.2), pytest.approx(0.5))


def test_paired_examples_take_what_they_share_out_of_the_error() -> None:
    arm = [{"a": (0.9, 1.0), "b": (0.2, 1.0)}, {"a": (1.1, 1.0), "b": (0.2, 1.0)}]
    baseline = [{"a": (0.8, 1.0), "b": (0.1, 1.0)}]
    paired = pair_examples(arm, baseline)
    assert paired == ([pytest.approx(0.2), pytest.approx(0.1)], [1.0, 1.0])
    # seeds 0.55 and 0.65 of the arm: s^2 / 2 = 0.0025; d_i 0.2, 0.1: error 0.05
    found = difference([Estimate(0.55, 0.35), Estimate(0.65, 0.45)], [Estimate(0.45, 0.35)], paired)
    assert found.value == pytest.approx(0.15)
    assert found.stderr == pytest.approx(math.sqrt(0.0025 + 0.0025))


def test_arms_with_other_examples_are_not_paired() -> None:
    assert pair_examples([{"a": (1.0, 1.0)}], [{"b": (1.0, 1.0)}]) is None
    assert pair_examples([], [{"b": (1.0, 1.0)}]) is None
