"""The distribution of a measured value: how many fell into each bucket, their sum, and the latest ones as they were."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from inferloop.core.datatypes import Array

_RECENT = 2048


class Spread:
    """Counts by bucket, for a Prometheus histogram; and the latest values, for quantiles. One thread at a time.

    Attributes:
        bounds: the upper bounds of the buckets, ascending; one more bucket takes what is above.
        counts: INT64[len(bounds) + 1], how many fell into each, not cumulative.
        total: the sum of all values.
        count: how many there were.
    """

    __slots__ = ("_bounds", "_recent", "bounds", "count", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self._bounds = np.array(bounds, np.float64)
        self.counts = np.zeros(len(bounds) + 1, np.int64)
        self.total = 0.0
        self.count = 0
        self._recent = np.empty(0)

    def add(self, values: Array) -> None:
        """Take in FP64[N], N >= 0."""
        if not len(values):
            return
        places = np.searchsorted(self._bounds, values, side="left")  # a bound belongs to its bucket
        self.counts += np.bincount(places, minlength=len(self.counts))
        self.total += float(values.sum())
        self.count += len(values)
        self._recent = np.concatenate([self._recent, values])[-_RECENT:]

    def quantiles(self, shares: Sequence[float]) -> list[float]:
        """Those of the latest values; empty if there are none."""
        return np.quantile(self._recent, shares).tolist() if len(self._recent) else []

    def merge(self, other: Spread) -> None:
        """Take in another one with the same bounds."""
        self.counts = self.counts + other.counts
        self.total += other.total
        self.count += other.count
        self._recent = np.concatenate([self._recent, other._recent])[-_RECENT:]

    def copy(self) -> Spread:
        """One that does not change with this one."""
        twin = Spread(self.bounds)
        twin.merge(self)
        return twin
