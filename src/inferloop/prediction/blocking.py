"""Runs in the thread of the caller, for those who call a Predictor without an event loop."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from inferloop.core.datatypes import Tensors
from inferloop.core.errors import Unavailable
from inferloop.core.protocols import Session
from inferloop.prediction.jobs import Group, grouping
from inferloop.prediction.meter import Meter


class BlockingRuns:
    """Runs a session for callers in any thread, at most `max_batch` rows at once.

    Args:
        plain: for tensors.
        judged: for samples, whose answers need verdicts.

    Attributes:
        closed: set when the model is closed; every run is refused then.
    """

    def __init__(self, plain: Session, judged: Session, *, max_batch: int, meter: Meter, name: str) -> None:
        self.closed = False
        self._plain = plain
        self._judged = judged
        self._signature = plain.signature
        self._group: Callable[[Tensors], Group] = grouping(plain.signature)
        self._max_batch = max_batch
        self._meter = meter
        self._name = name

    def tensors(self, tensors: Tensors, rows: int) -> Tensors:
        """The outputs of checked tensors of any number of rows."""
        if rows <= self._max_batch or not self._signature.batched:
            return self._timed(self._plain, tensors, rows)
        size = self._max_batch
        parts = [
            self._timed(
                self._plain, {name: array[start : start + size] for name, array in tensors.items()}, min(size, rows - start)
            )
            for start in range(0, rows, size)
        ]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def rows(self, rows: list[Tensors]) -> list[Tensors]:
        """One row of outputs for each row of tensors; rows of one shape share runs."""
        if len(rows) == 1:  # its transforms have checked it
            return [self._timed(self._judged, rows[0], 1)]
        found: list[Tensors] = [{}] * len(rows)
        for places in self._batches(rows):
            stacked = {name: np.concatenate([rows[place][name] for place in places]) for name in rows[places[0]]}
            outputs = self._timed(self._judged, stacked, len(places))
            for index, place in enumerate(places):
                found[place] = {name: array[index : index + 1] for name, array in outputs.items()}
        return found

    def _batches(self, rows: list[Tensors]) -> list[list[int]]:
        """The places of the rows that may share a run, at most `max_batch` each."""
        groups: dict[object, list[int]] = {}
        for place, tensors in enumerate(rows):
            self._signature.check(tensors)
            groups.setdefault(self._group(tensors), []).append(place)
        size = self._max_batch if self._signature.batched else 1
        return [places[start : start + size] for places in groups.values() for start in range(0, len(places), size)]

    def _timed(self, session: Session, tensors: Tensors, rows: int) -> Tensors:
        if self.closed:
            raise Unavailable(f"the predictor of {self._name!r} is closed")
        started = time.perf_counter()
        try:
            outputs = session.run(tensors)
        except Exception:
            self._meter.engine_failed()
            raise
        self._meter.ran(time.perf_counter() - started, rows=rows)
        return outputs
