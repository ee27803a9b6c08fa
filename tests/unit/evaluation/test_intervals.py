"""Intervals and tests against scipy, known tables and simulation."""

import math

import numpy as np
import pytest

from inferloop.core.errors import InvalidInput
from inferloop.evaluation.intervals import (
    Discordant,
    discordant,
    mcnemar,
    paired_bootstrap,
    paired_difference,
    sign_test,
    smallest_visible,
    wilson,
)
from inferloop.evaluation.metrics import accuracy


@pytest.mark.parametrize(("wins", "losses"), [(0, 0), (1, 0), (5, 0), (7, 3), (60, 40), (400, 350), (12, 12)])
def test_mcnemar_is_the_exact_binomial_test(wins, losses):
    stats = pytest.importorskip("scipy.stats", reason="scipy comes with pip install 'inferloop[sklearn]'")
    expected = stats.binomtest(wins, wins + losses).pvalue if wins + losses else 1.0
    assert mcnemar(wins, losses) == pytest.approx(expected, rel=1e-9)


def test_the_sign_test_keeps_its_precision_far_in_the_tail():
    assert sign_test(wins=2000, losses=0) == 0.0 or sign_test(wins=2000, losses=0) < 1e-300
    assert sign_test(wins=1000, losses=0) == pytest.approx(0.5**1000, rel=1e-9)


def test_the_wilson_interval_of_a_known_table():
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert wilson(0, 20)[0] == 0.0
    assert wilson(20, 20)[1] == 1.0


def test_a_paired_difference_covers_the_truth_at_least_as_often_as_it_says():
    random = np.random.default_rng(0)
    covered = 0
    for _ in range(1000):
        wins, losses, _rest = random.multinomial(200, [0.07, 0.04, 0.89])
        interval = paired_difference(Discordant(int(wins), int(losses), 200))
        covered += interval.low <= 0.03 <= interval.high
    assert 935 <= covered <= 985


def test_no_discordant_row_among_few_is_no_certainty():
    assert paired_difference(Discordant(0, 0, 20)).low < -0.05
    assert paired_difference(Discordant(0, 0, 2000)).low > -0.005


def test_wins_and_losses_are_counted_on_the_same_rows():
    truth, first, second = np.array([0, 1, 2, 0]), np.array([0, 1, 1, 1]), np.array([0, 0, 2, 0])
    assert discordant(truth, first, second) == Discordant(wins=2, losses=1, rows=4)
    with pytest.raises(InvalidInput, match="same N"):
        discordant(truth, first[:2], second)


def test_the_smallest_visible_difference_follows_the_square_root_of_the_discordant_rows():
    assert smallest_visible(92, 1540) == pytest.approx(0.0125, abs=0.002)
    assert math.isnan(smallest_visible(3, 1000))


def test_the_bootstrap_of_accuracy_agrees_with_the_paired_interval():
    random = np.random.default_rng(1)
    truth = np.zeros(1000, np.int64)
    first = (random.random(1000) < 0.2).astype(np.int64)
    second = np.where(random.random(1000) < 0.3, 0, first)
    bootstrap = paired_bootstrap(truth, first, second=second, metric=accuracy, resamples=1000)
    exact = paired_difference(discordant(truth, first, second))
    assert bootstrap.estimate == pytest.approx(exact.estimate)
    assert (bootstrap.low, bootstrap.high) == pytest.approx((exact.low, exact.high), abs=0.006)


def test_the_bootstrap_depends_on_nothing_but_its_seed():
    truth, first, second = np.array([0, 1, 0, 1]), np.array([0, 0, 0, 1]), np.array([0, 1, 0, 0])
    draw = [paired_bootstrap(truth, first, second=second, metric=accuracy, resamples=50, seed=3) for _ in range(2)]
    assert draw[0] == draw[1]
