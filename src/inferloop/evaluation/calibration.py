"""Whether a score of 0.9 is right nine times of ten: softmax, temperature and the expected calibration error."""

from __future__ import annotations

import numpy as np

from inferloop.core.datatypes import Array
from inferloop.core.errors import InvalidInput

_TEMPERATURES = np.geomspace(0.1, 5.0, 80)


def softmax(logits: Array) -> Array:
    """Probabilities, float64 [N, C]."""
    return np.asarray(np.exp(log_softmax(logits)))


def log_softmax(logits: Array) -> Array:
    """Logarithms of the probabilities, float64 [N, C]."""
    shifted = np.asarray(logits, np.float64) - np.max(logits, axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.sum(np.exp(shifted), axis=1, keepdims=True)))


def log_loss(logits: Array, labels: Array, *, weights: Array | None = None) -> float:
    """The (weighted) mean negative logarithm of the true class's probability (nats)."""
    return float(-np.average(log_softmax(logits)[np.arange(len(labels)), labels], weights=weights))


def fit_temperature(logits: Array, labels: Array, *, weights: Array | None = None) -> float:
    """The T with the smallest log loss of `softmax(logits / T)`, searched over 80 values from 0.1 to 5.

    Args:
        logits: [N, C], from rows that the model was not fitted on.
        labels: int64 [N].
        weights: [N]; how much each row counts.

    Returns:
        T; below 1 sharpens an under-confident model, above 1 softens an over-confident one.
    """
    _check(logits, labels)
    losses = [log_loss(logits / temperature, labels, weights=weights) for temperature in _TEMPERATURES]
    return float(_TEMPERATURES[int(np.argmin(losses))])


def ece(probabilities: Array, labels: Array, *, bins: int = 15) -> float:
    """Expected calibration error of the top class over `bins` equal intervals of confidence."""
    _check(probabilities, labels)
    confidence = probabilities.max(axis=1)
    right = (probabilities.argmax(axis=1) == labels).astype(np.float64)
    index = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    gap = np.bincount(index, weights=right - confidence, minlength=bins)
    return float(np.abs(gap).sum() / len(labels))


def reliability(probabilities: Array, labels: Array, *, bins: int = 15) -> list[tuple[float, float]]:
    """Mean confidence and accuracy of every bin that is not empty, for a plot."""
    _check(probabilities, labels)
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    index = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    return [(float(confidence[index == b].mean()), float(right[index == b].mean())) for b in range(bins) if np.any(index == b)]


def _check(scores: Array, labels: Array) -> None:
    if scores.ndim != 2 or labels.shape != scores.shape[:1] or len(labels) == 0:
        raise InvalidInput(
            f"scores have shape {list(scores.shape)}, labels {list(labels.shape)}; they need [N, C] and [N], N >= 1"
        )
