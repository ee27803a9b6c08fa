"""How sure a measured figure is: Wilson, paired bootstrap, exact McNemar, Tango's interval of a paired difference.

Paired means: two models answered the same rows. `wins` are rows that only the second has right, `losses` rows that only
the first has right; rows on which both are right or both wrong say nothing about the difference.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from inferloop.core.datatypes import Array
from inferloop.core.errors import InvalidInput


class Interval(NamedTuple):
    """An estimate and the bounds around it."""

    estimate: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.estimate:+.4f} [{self.low:+.4f}, {self.high:+.4f}]"


class Discordant(NamedTuple):
    """The rows that tell two models apart."""

    wins: int
    losses: int
    rows: int

    @property
    def difference(self) -> float:
        """How much more accurate the second model is, 0..1."""
        return (self.wins - self.losses) / self.rows

    @property
    def p_value(self) -> float:
        """Exact two-sided McNemar test."""
        return mcnemar(self.wins, self.losses)


def discordant(truth: Array, first: Array, second: Array) -> Discordant:
    """Count the rows that only one of two predictions has right; all int64 [N]."""
    if not truth.shape == first.shape == second.shape or len(truth) == 0:
        raise InvalidInput(f"paired predictions need the same N >= 1, got {len(truth)}, {len(first)} and {len(second)} rows")
    first_right, second_right = first == truth, second == truth
    return Discordant(int(np.sum(second_right & ~first_right)), int(np.sum(first_right & ~second_right)), len(truth))


def wilson(hits: int, rows: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """The Wilson score interval of a share."""
    if rows < 1:
        raise InvalidInput("an interval needs at least one row")
    z = _z_two_sided(confidence)
    share = hits / rows
    center = (share + z * z / (2 * rows)) / (1 + z * z / rows)
    half = z / (1 + z * z / rows) * math.sqrt(share * (1 - share) / rows + z * z / (4 * rows * rows))
    return max(0.0, center - half), min(1.0, center + half)


def mcnemar(wins: int, losses: int) -> float:
    """The exact two-sided p-value that two models with these discordant rows are equally good."""
    return min(1.0, 2.0 * sign_test(wins=max(wins, losses), losses=min(wins, losses)))


def sign_test(*, wins: int, losses: int) -> float:
    """The exact one-sided p-value of at least `wins` among the discordant rows, each a fair coin."""
    total = wins + losses
    if total == 0:
        return 1.0
    logs = [_log_choose(total, k) - total * math.log(2.0) for k in range(losses + 1)]
    top = max(logs)
    return min(1.0, math.exp(top) * math.fsum(math.exp(log - top) for log in logs))


def paired_difference(pairs: Discordant, *, confidence: float = 0.95) -> Interval:
    """Tango's score interval of the difference in accuracy (second minus first), two-sided.

    It stays honest where a normal approximation claims certainty: few rows, or no discordant ones.
    """
    z = _z_two_sided(confidence)
    return Interval(pairs.difference, _tango_bound(pairs, z, upper=False), _tango_bound(pairs, z, upper=True))


def smallest_visible(discordant_rows: int, rows: int, *, confidence: float = 0.95) -> float:
    """The smallest difference in accuracy that McNemar calls significant with this many discordant rows.

    NaN if no split of them is significant: then no difference could have been seen.
    """
    for net in range(discordant_rows % 2, discordant_rows + 1, 2):
        if mcnemar((discordant_rows + net) // 2, (discordant_rows - net) // 2) < 1 - confidence:
            return net / rows
    return math.nan


def paired_bootstrap(
    truth: Array,
    first: Array,
    *,
    second: Array,
    metric: Callable[[Array, Array], float],
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap of `metric(truth, second) - metric(truth, first)` over resampled rows.

    Args:
        truth: the first argument of `metric`, [N, ...].
        first: what the first model said, [N, ...].
        second: what the second said on the same rows.
        metric: e.g. `accuracy`, or a lambda around `macro_f1`.
        resamples: how often rows are drawn again.
        confidence: of the two-sided interval.
        seed: of the draws.
    """
    if not len(truth) == len(first) == len(second) or len(truth) == 0:
        raise InvalidInput(f"paired predictions need the same N >= 1, got {len(truth)}, {len(first)} and {len(second)} rows")
    random = np.random.default_rng(seed)
    differences = np.empty(resamples)
    for index in range(resamples):
        rows = random.integers(0, len(truth), len(truth))
        differences[index] = metric(truth[rows], second[rows]) - metric(truth[rows], first[rows])
    tail = (1 - confidence) / 2
    low, high = np.quantile(differences, (tail, 1 - tail))
    return Interval(metric(truth, second) - metric(truth, first), float(low), float(high))


def _z_two_sided(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise InvalidInput(f"a confidence of {confidence} is not between 0 and 1")
    return NormalDist().inv_cdf(0.5 + confidence / 2)


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def _tango_score(pairs: Discordant, delta: float) -> float:
    """Tango (1998): the score statistic of the hypothesis that the difference is `delta`."""
    wins, losses, rows = pairs
    a = 2.0 * rows
    b = -wins - losses + (2.0 * rows - wins + losses) * delta
    c = -losses * delta * (1.0 - delta)
    q = (math.sqrt(max(0.0, b * b - 4.0 * a * c)) - b) / (2.0 * a)
    spread = rows * (2.0 * q + delta * (1.0 - delta))
    gap = wins - losses - rows * delta
    if spread <= 0.0:
        return 0.0 if gap == 0.0 else math.copysign(math.inf, gap)
    return gap / math.sqrt(spread)


def _tango_bound(pairs: Discordant, z: float, *, upper: bool) -> float:
    """Bisection: the score falls in delta; the bounds are where it crosses +z and -z."""
    low, high = (pairs.difference, 1.0) if upper else (-1.0, pairs.difference)
    limit = -z if upper else z
    for _ in range(60):
        middle = (low + high) / 2
        if _tango_score(pairs, middle) > limit:
            low = middle
        else:
            high = middle
    return (low + high) / 2
