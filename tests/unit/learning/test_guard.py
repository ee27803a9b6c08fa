"""The guard against simulated challengers, its error rates measured."""

import math

import numpy as np
import pytest

from inferloop.core.errors import InvalidInput
from inferloop.learning.guard import Answers, GuardConfig, judge

CLASSES = 8
LABELS = [f"class {index}" for index in range(CLASSES)]


def answers(random, rows, *, base=0.85, wins=0.05, losses=0.05):
    """Two calibrated models: the challenger alone is right on a share of `wins`, the champion alone on `losses`."""
    truth = random.integers(0, CLASSES, rows)
    draw = random.random(rows)
    both = base - losses
    champion_right = draw < both + losses
    challenger_right = (draw < both) | ((draw >= both + losses) & (draw < both + losses + wins))
    return Answers(
        truth,
        probabilities(random, truth, champion_right, confidence=base),
        probabilities(random, truth, challenger_right, confidence=base + wins - losses),
    )


def probabilities(random, truth, right, *, confidence):
    chosen = np.where(right, truth, (truth + random.integers(1, CLASSES, len(truth))) % CLASSES)
    table = np.full((len(truth), CLASSES), (1 - confidence) / (CLASSES - 1))
    table[np.arange(len(truth)), chosen] = confidence
    return table


def promoted(trials, *, rows=1500, holdout=(0.02, 0.02), recent=(0.05, 0.05)):
    config = GuardConfig(resamples=2)
    random = np.random.default_rng(7)
    count = 0
    for _ in range(trials):
        frozen = answers(random, 2000, wins=holdout[0], losses=holdout[1])
        live = answers(random, rows, wins=recent[0], losses=recent[1])
        count += judge(frozen, live, labels=LABELS, config=config).passed
    return count / trials


@pytest.mark.parametrize("recent", [(0.05, 0.05), (0.01, 0.01), (0.10, 0.10)])
def test_equal_models_are_promoted_in_at_most_five_percent_of_trials(recent):
    assert promoted(200, recent=recent) <= 0.05


@pytest.mark.parametrize("recent", [(0.06, 0.03), (0.08, 0.05)])
def test_a_challenger_better_by_three_points_on_1500_rows_is_found_in_four_of_five_trials(recent):
    assert promoted(100, recent=recent) >= 0.80


def test_a_challenger_that_costs_three_points_on_the_hold_out_is_promoted_in_at_most_five_percent_of_trials():
    assert promoted(200, holdout=(0.01, 0.04), recent=(0.10, 0.02)) <= 0.05


def test_one_ruined_class_blocks_a_challenger_that_is_better_on_the_whole():
    random = np.random.default_rng(1)
    frozen, live = answers(random, 2000, wins=0.02, losses=0.01), answers(random, 1500, wins=0.12, losses=0.02)
    assert judge(frozen, live, labels=LABELS).passed
    mine = np.flatnonzero(live.truth == 3)[:60]
    live.challenger[mine] = np.eye(CLASSES)[4] * 0.2 + 0.1
    report = judge(frozen, live, labels=LABELS)
    assert [gate.name for gate in report.gates if not gate.passed] == ["ruined_classes"]
    assert "class 3 (recent)" in " ".join(report.notes)


def test_a_class_ruined_on_the_hold_out_blocks_too():
    random = np.random.default_rng(2)
    frozen, live = answers(random, 2000, wins=0.05, losses=0.0), answers(random, 1500, wins=0.12, losses=0.02)
    few = np.flatnonzero(frozen.truth == 0)[:40]
    keep = np.setdiff1d(np.arange(2000), np.flatnonzero(frozen.truth == 0)[40:])
    frozen.challenger[few] = np.eye(CLASSES)[1] * 0.9 + 0.01
    report = judge(Answers(frozen.truth[keep], frozen.champion[keep], frozen.challenger[keep]), live, labels=LABELS)
    assert report.figures["ruined_classes"] == 1


def test_a_handful_of_rows_does_not_ruin_a_class():
    random = np.random.default_rng(3)
    frozen, live = answers(random, 2000, wins=0.02, losses=0.01), answers(random, 160, wins=0.2, losses=0.0)
    mine = np.flatnonzero(live.truth == 2)[:3]
    live.challenger[mine] = np.eye(CLASSES)[3] * 0.9 + 0.01
    assert judge(frozen, live, labels=LABELS).figures["ruined_classes"] == 0


def test_the_same_model_is_never_promoted_and_the_report_says_that_nothing_could_be_seen():
    random = np.random.default_rng(4)
    frozen, live = answers(random, 2000, wins=0, losses=0), answers(random, 1500, wins=0, losses=0)
    report = judge(frozen, live, labels=LABELS)
    assert not report.passed
    assert math.isnan(report.figures["recent_smallest_visible"])
    assert "no difference could have been seen" in " ".join(report.notes)


def test_an_overconfident_challenger_is_stopped_by_its_calibration():
    random = np.random.default_rng(5)
    frozen, live = answers(random, 2000, wins=0.02, losses=0.0), answers(random, 1500, wins=0.08, losses=0.02)
    sure = np.where(live.challenger == live.challenger.max(axis=1, keepdims=True), 1.0, 0.0)
    report = judge(frozen, Answers(live.truth, live.champion, sure), labels=LABELS)
    assert [gate.name for gate in report.gates if not gate.passed] == ["recent_ece"]


def test_without_rows_nothing_is_shown_and_nothing_is_promoted():
    nothing = Answers(np.zeros(0, np.int64), np.zeros((0, CLASSES)), np.zeros((0, CLASSES)))
    live = answers(np.random.default_rng(6), 1500, wins=0.1, losses=0.02)
    assert not judge(nothing, live, labels=LABELS).passed
    assert not judge(live, nothing, labels=LABELS).passed
    assert "give feedback first" in " ".join(judge(live, nothing, labels=LABELS).notes)


def test_a_hold_out_too_small_to_show_non_inferiority_says_so():
    random = np.random.default_rng(8)
    frozen, live = answers(random, 60, wins=0.1, losses=0.1), answers(random, 1500, wins=0.1, losses=0.02)
    even = Answers(frozen.truth, frozen.champion, frozen.champion)
    report = judge(even, live, labels=LABELS)
    assert not report.passed
    assert "too small" in " ".join(report.notes)


def test_the_smallest_visible_difference_is_printed_with_the_counts():
    random = np.random.default_rng(9)
    report = judge(answers(random, 1540, wins=0.03, losses=0.03), answers(random, 1540, wins=0.03, losses=0.03), labels=LABELS)
    assert 0.008 < report.figures["holdout_smallest_visible"] < 0.016
    assert sum("could have been seen is" in note for note in report.notes) == 2


def test_many_readings_of_the_gate_rows_are_called_by_their_price():
    random = np.random.default_rng(10)
    pair = answers(random, 500), answers(random, 500)
    assert judge(*pair, labels=LABELS, readings=2).figures["gate_readings"] == 2
    assert "read 20 times before" in " ".join(judge(*pair, labels=LABELS, readings=20).notes)


def test_a_senseless_demand_is_refused():
    with pytest.raises(InvalidInput, match=r"confidence 1\.5"):
        GuardConfig(confidence=1.5)
