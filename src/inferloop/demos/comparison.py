"""The model against the baseline on the same rows: accuracy and macro-F1, each gain with its paired interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from inferloop.core.datatypes import Array
from inferloop.core.report import Table
from inferloop.evaluation.intervals import Interval, discordant, paired_bootstrap, paired_difference
from inferloop.evaluation.metrics import accuracy, macro_f1

_RESAMPLES = 1000


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two models on the same rows.

    Attributes:
        accuracy_gain: ours minus the baseline's, with its 95 % interval; so for `f1_gain`.
    """

    rows: int
    accuracy: float
    baseline_accuracy: float
    accuracy_gain: Interval
    f1: float
    baseline_f1: float
    f1_gain: Interval

    def table(self, baseline: str) -> Table:
        """Both models, and the gain with its interval."""
        return Table(
            f"on {self.rows} messages that neither has seen",
            ("figure", "this model", baseline, "gain", "95 % from", "95 % to"),
            (
                ("accuracy", self.accuracy, self.baseline_accuracy, *self.accuracy_gain),
                ("macro-F1", self.f1, self.baseline_f1, *self.f1_gain),
            ),
        )


def compare(truth: Sequence[str], ours: Sequence[str], *, baseline: Sequence[str]) -> Comparison:
    """Hold the labels of two models against the truth."""
    classes = sorted({*truth, *ours, *baseline})
    right, first, second = (_numbers(labels, classes) for labels in (truth, baseline, ours))

    def f1(expected: Array, got: Array) -> float:
        return macro_f1(expected, got, len(classes))

    return Comparison(
        rows=len(truth),
        accuracy=accuracy(right, second),
        baseline_accuracy=accuracy(right, first),
        accuracy_gain=paired_difference(discordant(right, first, second)),
        f1=f1(right, second),
        baseline_f1=f1(right, first),
        f1_gain=paired_bootstrap(right, first, second=second, metric=f1, resamples=_RESAMPLES),
    )


def _numbers(labels: Sequence[str], classes: Sequence[str]) -> Array:
    index = {label: number for number, label in enumerate(classes)}
    return np.array([index[label] for label in labels], dtype=np.int64)
