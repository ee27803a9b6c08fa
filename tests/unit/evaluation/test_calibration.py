"""Temperature and the expected calibration error."""

import numpy as np
import pytest

from inferloop.core.errors import InvalidInput
from inferloop.evaluation.calibration import ece, fit_temperature, log_loss, reliability, softmax


def drawn(temperature, rows=4000):
    """Logits whose labels are drawn from softmax(logits / temperature)."""
    random = np.random.default_rng(0)
    logits = random.normal(size=(rows, 5)) * 3
    cumulative = np.cumsum(softmax(logits / temperature), axis=1)
    return logits, np.minimum((random.random((rows, 1)) > cumulative).sum(axis=1), 4)


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_the_temperature_that_made_the_labels_is_found(temperature):
    logits, labels = drawn(temperature)
    assert fit_temperature(logits, labels) == pytest.approx(temperature, rel=0.08)


def test_calibrating_lowers_the_error_to_almost_nothing():
    logits, labels = drawn(2.5)
    calibrated = logits / fit_temperature(logits, labels)
    assert ece(softmax(logits), labels) > 0.15
    assert ece(softmax(calibrated), labels) < 0.02
    assert log_loss(calibrated, labels) < log_loss(logits, labels)


def test_the_error_is_the_gap_between_confidence_and_accuracy():
    probabilities = np.array([[0.9, 0.1]] * 10)
    labels = np.array([0] * 6 + [1] * 4)
    assert ece(probabilities, labels) == pytest.approx(0.3)
    assert reliability(probabilities, labels) == [(pytest.approx(0.9), pytest.approx(0.6))]


def test_softmax_survives_large_logits():
    assert softmax(np.array([[1000.0, 0.0]])).tolist() == [[1.0, 0.0]]


def test_scores_and_labels_of_different_length_are_refused():
    with pytest.raises(InvalidInput, match=r"\[N, C\]"):
        ece(np.zeros((3, 2)), np.zeros(2, np.int64))
