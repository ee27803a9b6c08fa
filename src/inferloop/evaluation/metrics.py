"""Accuracy, macro-F1, the confusion matrix and the table by class.

Truth and predictions are int64 [N], the index of a class; `classes` is their number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from inferloop.core.datatypes import Array
from inferloop.core.errors import InvalidInput
from inferloop.core.report import Table
from inferloop.evaluation.intervals import wilson


@dataclass(frozen=True, slots=True)
class ClassScore:
    """How one class fares.

    Attributes:
        label: its name.
        rows: rows of which it is the truth.
        recall: the share of them that were found; NaN without rows.
        precision: the share of its predictions that were right; NaN if it was never predicted.
        f1: their harmonic mean; NaN for a class that is neither truth nor prediction.
    """

    label: str
    rows: int
    recall: float
    precision: float
    f1: float


def accuracy(truth: Array, predicted: Array) -> float:
    """The share of rows that are right."""
    _same_rows(truth, predicted)
    return float(np.mean(truth == predicted))


def macro_f1(truth: Array, predicted: Array, classes: int) -> float:
    """The mean F1 over the classes that occur as truth or as prediction."""
    return float(np.nanmean(_f1(confusion(truth, predicted, classes))))


def confusion(truth: Array, predicted: Array, classes: int) -> Array:
    """Counts, int64 [classes, classes]: rows are the truth, columns the prediction."""
    _same_rows(truth, predicted)
    for name, values in (("truth", truth), ("prediction", predicted)):
        if values.min() < 0 or values.max() >= classes:
            raise InvalidInput(f"a {name} is class {int(values.max())}, there are {classes} classes")
    return np.bincount(truth * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def class_scores(truth: Array, predicted: Array, labels: Sequence[str]) -> tuple[ClassScore, ...]:
    """One score a class, in the order of `labels`."""
    counts = confusion(truth, predicted, len(labels))
    hits = np.diag(counts)
    rows, named = counts.sum(axis=1), counts.sum(axis=0)
    recall, precision, f1 = _ratio(hits, rows), _ratio(hits, named), _f1(counts)
    return tuple(
        ClassScore(label, int(rows[i]), float(recall[i]), float(precision[i]), float(f1[i])) for i, label in enumerate(labels)
    )


def class_table(truth: Array, predicted: Array, labels: Sequence[str], *, title: str = "by class") -> Table:
    """The scores of every class, the recall with its 95 % Wilson interval."""
    rows = []
    for score in class_scores(truth, predicted, labels):
        low, high = wilson(round(score.recall * score.rows), score.rows) if score.rows else (0.0, 1.0)
        rows.append((score.label, score.rows, score.recall, f"{low:.3f}-{high:.3f}", score.precision, score.f1))
    return Table(title, ("class", "rows", "recall", "recall 95 %", "precision", "F1"), tuple(rows))


def confusion_table(truth: Array, predicted: Array, labels: Sequence[str], *, limit: int = 12) -> Table:
    """The most frequent confusions, largest first."""
    counts = confusion(truth, predicted, len(labels))
    np.fill_diagonal(counts, 0)
    order = np.argsort(-counts, axis=None, kind="stable")[:limit]
    pairs = [divmod(int(index), len(labels)) for index in order]
    rows = tuple((labels[i], labels[j], int(counts[i, j])) for i, j in pairs if counts[i, j] > 0)
    return Table("most frequent confusions", ("truth", "predicted", "rows"), rows)


def _f1(counts: Array) -> Array:
    hits = np.diag(counts)
    return _ratio(2 * hits, counts.sum(axis=0) + counts.sum(axis=1))


def _ratio(part: Array, whole: Array) -> Array:
    shares: Array = np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0)
    return shares


def _same_rows(truth: Array, predicted: Array) -> None:
    if truth.shape != predicted.shape or truth.ndim != 1 or len(truth) == 0:
        raise InvalidInput(f"truth has shape {list(truth.shape)}, predictions {list(predicted.shape)}; both need the same N >= 1")
