"""Means and standard errors: over examples, over seeds, and of an arm's difference to the baseline arm.

**Examples.** A task's value is the weighted mean R = sum(w_i x_i) / sum(w_i) of its n examples' scores. Its standard error, by
linearisation (Cochran 1977, ratio estimator), is sqrt(n / (n - 1) * sum(w_i^2 (x_i - R)^2)) / sum(w_i); with equal weights that is the
sample standard deviation over sqrt(n). Bits per byte is such a mean: a document's score is its bits per byte, its weight its bytes.

**Seeds.** With values v_1 … v_S of S seeds and their standard errors e_1 … e_S over examples, the mean is m = mean(v) and its standard
error sqrt(s^2 / S + mean(e^2)), where s is the sample standard deviation of v (0 for one seed). All seeds answer the same examples, so more
seeds do not lessen the examples' part.

**Difference to the baseline.** d = m_arm - m_baseline. Both arms answer the same examples: where every example's scores are known,
d_i = (mean over seeds of the arm's score of i) - (that of the baseline), and the standard error is
sqrt(s_arm^2 / S_arm + s_baseline^2 / S_baseline + e_d^2), where e_d is the standard error of the weighted mean of d_i. Where they are not
known, the arms are taken for independent: sqrt(stderr_arm^2 + stderr_baseline^2), which is too large rather than too small.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Estimate:
    """A value with its standard error (None where it is not known)."""

    value: float
    stderr: float | None


def weighted_mean(scores: Sequence[float], weights: Sequence[float] | None = None) -> Estimate:
    """R and its standard error over the examples; None for fewer than two.

    Raises:
        ValueError: there are no scores, or the weights do not match or add up to zero.
    """
    weights = [1.0] * len(scores) if weights is None else weights
    total = math.fsum(weights)
    if not scores or len(weights) != len(scores) or total <= 0:
        raise ValueError(f"no mean of {len(scores)} scores with {len(weights)} weights that add up to {total:g}")
    mean = math.fsum(w * x for w, x in zip(weights, scores, strict=True)) / total
    n = len(scores)
    if n < 2:
        return Estimate(mean, None)
    squares = math.fsum((w * (x - mean)) ** 2 for w, x in zip(weights, scores, strict=True))
    return Estimate(mean, math.sqrt(n / (n - 1) * squares) / total)


def over_seeds(seeds: Sequence[Estimate]) -> Estimate:
    """m and its standard error; None if a seed's is not known and there is only one seed.

    Raises:
        ValueError: there are no seeds.
    """
    if not seeds:
        raise ValueError("no seeds")
    known = [s.stderr for s in seeds if s.stderr is not None]
    mean = math.fsum(s.value for s in seeds) / len(seeds)
    if not known and len(seeds) == 1:
        return Estimate(mean, None)
    examples = math.fsum(e * e for e in known) / len(known) if known else 0.0
    return Estimate(mean, math.sqrt(_seed_variance([s.value for s in seeds]) + examples))


def difference(
    arm: Sequence[Estimate],
    baseline: Sequence[Estimate],
    paired: tuple[Sequence[float], Sequence[float]] | None = None,
) -> Estimate:
    """d and its standard error.

    Args:
        arm: the arm's seeds.
        baseline: the baseline's seeds.
        paired: the d_i and their weights, where both arms' scores of every example are known.
    """
    a, b = over_seeds(arm), over_seeds(baseline)
    value = a.value - b.value
    if paired is not None:
        examples = weighted_mean(*paired).stderr
        if examples is not None:
            seeds = _seed_variance([s.value for s in arm]) + _seed_variance([s.value for s in baseline])
            return Estimate(value, math.sqrt(seeds + examples**2))
    if a.stderr is None or b.stderr is None:
        return Estimate(value, None)
    return Estimate(value, math.hypot(a.stderr, b.stderr))


def pair_examples(
    arm: Sequence[Mapping[str, tuple[float, float]]], baseline: Sequence[Mapping[str, tuple[float, float]]]
) -> tuple[list[float], list[float]] | None:
    """The d_i and their weights.

    Args:
        arm: for each seed, score and weight by example id.
        baseline: likewise.

    Returns:
        None unless all seeds of both have the same examples.
    """
    tables = [*arm, *baseline]
    if not arm or not baseline or any(table.keys() != tables[0].keys() for table in tables) or not tables[0]:
        return None
    ids = sorted(tables[0])
    mean = {i: math.fsum(t[i][0] for t in arm) / len(arm) - math.fsum(t[i][0] for t in baseline) / len(baseline) for i in ids}
    return [mean[i] for i in ids], [tables[0][i][1] for i in ids]


def wilson_interval(successes: int, num_trials: int, z: float = 1.96) -> tuple[float, float] | None:
    """Bounds of a share by Wilson's score interval (Wilson 1927), at 95 % unless `z` says otherwise; None of nothing.

    With p = successes / n: (p + z^2 / 2n ± z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n). Never outside of [0, 1], and sensible at its ends.
    """
    if not num_trials:
        return None
    p, n = successes / num_trials, num_trials
    middle, width = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    return max(0.0, (middle - width) / scale), min(1.0, (middle + width) / scale)


def _seed_variance(values: Sequence[float]) -> float:
    """Variance of the mean over seeds, s^2 / S."""
    if len(values) < 2:
        return 0.0
    mean = math.fsum(values) / len(values)
    return math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1) / len(values)
