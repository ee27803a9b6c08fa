"""What one model version did: counted in a fraction of a microsecond, exported when somebody asks.

    answered, waited, ran ─ append to a list ─ fold, every few hundred ─ histograms, Triton's statistics
                                                          └─ snapshot(), and `metrics.py` at a scrape

A request costs three appends, which are atomic, so that every thread may count. Sorting into buckets is done for many
at once by numpy; a reader folds first, so that nothing is late.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from inferloop.core import telemetry
from inferloop.core.datatypes import Array
from inferloop.core.errors import InferloopError
from inferloop.prediction.spread import Spread

_FOLD_AT = 512
_Run = tuple[int, int, float, float, float]


@dataclass(frozen=True, slots=True)
class Duration:
    """How often something happened, and for how long in all."""

    count: int = 0
    ns: int = 0

    def __add__(self, other: Duration) -> Duration:
        """Both together."""
        return Duration(self.count + other.count, self.ns + other.ns)


class BatchStats(NamedTuple):
    """The runs of the engine that had `batch_size` rows."""

    batch_size: int
    compute_input: Duration
    compute_infer: Duration
    compute_output: Duration


class ResponseStats(NamedTuple):
    """The answers of one place in the streams of a decoupled model: the first ones, the second ones, ..."""

    success: Duration = Duration()
    fail: Duration = Duration()


class Snapshot(NamedTuple):
    """Triton's statistics of one model version, since it was loaded.

    Attributes:
        success: requests that got their answer, from the door to the answer.
        fail: requests that got an error or whose caller left.
        queue: requests that reached the engine, and how long they waited for it.
        compute_input: requests, and how long their batches were being put together.
        compute_infer: requests, and how long the engine ran for their batches.
        compute_output: requests, and how long their batches were being taken apart.
        cache_hit: requests that were answered from the cache, with the look-up.
        cache_miss: requests that were looked up in vain, with look-up and insertion.
        batch_stats: the runs by their rows, ascending.
        inference_count: rows that the engine computed; those from the cache do not count.
        execution_count: runs of the engine.
        last_inference: milliseconds since the epoch; 0 before the first run.
        response_stats: for a decoupled model, by the place of an answer in its stream, from 0 on.
    """

    success: Duration = Duration()
    fail: Duration = Duration()
    queue: Duration = Duration()
    compute_input: Duration = Duration()
    compute_infer: Duration = Duration()
    compute_output: Duration = Duration()
    cache_hit: Duration = Duration()
    cache_miss: Duration = Duration()
    batch_stats: tuple[BatchStats, ...] = ()
    inference_count: int = 0
    execution_count: int = 0
    last_inference: int = 0
    response_stats: tuple[ResponseStats, ...] = ()


class Totals(NamedTuple):
    """All numbers of one model version, for the exporter.

    Attributes:
        outcomes: requests by outcome: `ok`, `cancelled` or a status of gRPC in lower case.
        request: seconds of good answers; `queue`, `input`, `infer`, `output` are those of a request's stations.
        engine: seconds of the runs, once each.
        batch_rows: rows of the runs.
        first_response: seconds until the first answer of a stream.
        pending: requests that wait for the engine now.
    """

    snapshot: Snapshot
    outcomes: Counter[str]
    request: Spread
    queue: Spread
    input: Spread
    infer: Spread
    output: Spread
    engine: Spread
    batch_rows: Spread
    first_response: Spread
    engine_failures: int
    shadow_failures: int
    pending: int


class Meter:
    """Counts what one version does. Any thread; every method returns at once and never fails.

    Attributes:
        labels: the model's name and its version.
        pending: tells how many requests wait for the engine; whoever holds the queue sets it.
    """

    def __init__(self, model: str, version: int) -> None:
        from inferloop.prediction import metrics

        self.labels = (model, str(version))
        self.pending: Callable[[], int] = _none
        self._lock = threading.Lock()
        self._latencies: list[float] = []
        self._waits: list[float] = []
        self._runs: list[_Run] = []
        self._last_s = 0.0
        self._outcomes: Counter[str] = Counter()
        self._engine_failures = self._shadow_failures = 0
        self._failed_s = 0.0
        self._rows = 0
        self._batches: dict[int, Array] = {}
        self._cache = np.zeros((2, 2))
        self._responses: list[ResponseStats] = []
        seconds = telemetry.SECONDS_BUCKETS
        self._request, self._queue, self._engine = Spread(seconds), Spread(seconds), Spread(seconds)
        self._input, self._infer, self._output = Spread(seconds), Spread(seconds), Spread(seconds)
        self._batch_rows, self._first = Spread(telemetry.ROWS_BUCKETS), Spread(seconds)
        metrics.export(self)

    def close(self) -> None:
        """Leave the exposition: the version is unloaded. A second call does nothing."""
        from inferloop.prediction import metrics

        metrics.withdraw(self)

    def answered(self, latency_s: float) -> None:
        """One good answer, so long after the request came in."""
        self._latencies.append(latency_s)
        if len(self._latencies) >= _FOLD_AT:
            self._fold()

    def waited(self, waits_s: Sequence[float]) -> None:
        """Requests got to the engine, each after so long in the queue."""
        self._waits.extend(waits_s)
        if len(self._waits) >= _FOLD_AT:
            self._fold()

    def ran(self, infer_s: float, *, rows: int = 1, requests: int = 1, input_s: float = 0.0, output_s: float = 0.0) -> None:
        """One good run of the engine.

        Args:
            infer_s: how long the engine had it.
            rows: what the run computed, without padding.
            requests: whose rows they were.
            input_s: how long the batch was being put together.
            output_s: how long it was being taken apart.
        """
        self._last_s = time.time()
        self._runs.append((rows, requests, input_s, infer_s, output_s))
        if len(self._runs) >= _FOLD_AT:
            self._fold()

    def refused(self, error: BaseException, latency_s: float = 0.0) -> None:
        """One request that got an error, or whose caller left, so long after it came in."""
        outcome = error.grpc_code.lower() if isinstance(error, InferloopError) else "cancelled"
        with self._lock:
            self._outcomes[outcome] += 1
            self._failed_s += latency_s

    def engine_failed(self) -> None:
        """One run that the engine failed; it does not count as `ran`."""
        with self._lock:
            self._engine_failures += 1

    def shadow_failed(self) -> None:
        """One answer of a shadow that nobody saw and that was none."""
        with self._lock:
            self._shadow_failures += 1

    def cached(self, took_s: float, *, hit: bool) -> None:
        """One look-up in the cache; of a miss, with the insertion."""
        with self._lock:
            self._cache[0 if hit else 1] += (1, took_s)

    def responded(self, place: int, latency_s: float, *, ok: bool = True) -> None:
        """One answer of a stream; `place` counts from 0. The whole request is counted by `answered`, too."""
        took = Duration(1, round(latency_s * 1e9))
        with self._lock:
            self._responses += [ResponseStats()] * (place + 1 - len(self._responses))
            success, fail = self._responses[place]
            self._responses[place] = ResponseStats(success + took, fail) if ok else ResponseStats(success, fail + took)
            if place == 0:
                self._first.add(np.array([latency_s]))

    def snapshot(self) -> Snapshot:
        """The statistics as they are now; consistent in themselves."""
        return self.totals().snapshot

    def totals(self) -> Totals:
        """Everything as it is now; the distributions are copies."""
        self._fold()
        with self._lock:
            outcomes = self._outcomes + Counter()
            outcomes["ok"] = self._request.count
            return Totals(
                self._snapshot(),
                outcomes,
                request=self._request.copy(),
                queue=self._queue.copy(),
                input=self._input.copy(),
                infer=self._infer.copy(),
                output=self._output.copy(),
                engine=self._engine.copy(),
                batch_rows=self._batch_rows.copy(),
                first_response=self._first.copy(),
                engine_failures=self._engine_failures,
                shadow_failures=self._shadow_failures,
                pending=self.pending(),
            )

    def _snapshot(self) -> Snapshot:
        hit, miss = (Duration(int(count), round(took * 1e9)) for count, took in self._cache)
        batches = tuple(
            BatchStats(rows, *(Duration(int(sums[0]), round(took * 1e9)) for took in sums[1:]))
            for rows, sums in sorted(self._batches.items())
        )
        return Snapshot(
            success=_duration(self._request),
            fail=Duration(self._outcomes.total(), round(self._failed_s * 1e9)),
            queue=_duration(self._queue),
            compute_input=_duration(self._input),
            compute_infer=_duration(self._infer),
            compute_output=_duration(self._output),
            cache_hit=hit,
            cache_miss=miss,
            batch_stats=batches,
            inference_count=self._rows,
            execution_count=self._engine.count,
            last_inference=int(self._last_s * 1000),
            response_stats=tuple(self._responses),
        )

    def _fold(self) -> None:
        with self._lock:
            self._request.add(np.array(_take(self._latencies)))
            self._queue.add(np.array(_take(self._waits)))
            if runs := _take(self._runs):
                self._fold_runs(np.array(runs))

    def _fold_runs(self, runs: Array) -> None:
        """A request has the whole time of its batch, however many share it; a run counts once."""
        rows, requests = runs[:, 0].astype(np.int64), runs[:, 1].astype(np.int64)
        self._engine.add(runs[:, 3])
        self._batch_rows.add(runs[:, 0])
        self._rows += int(rows.sum())
        for spread, took in zip((self._input, self._infer, self._output), runs[:, 2:].T, strict=True):
            spread.add(np.repeat(took, requests))
        for size in np.unique(rows).tolist():
            same = runs[rows == size]
            sums = np.array([len(same), *same[:, 2:].sum(axis=0)])
            self._batches[size] = self._batches.get(size, 0) + sums


def _take(pending: list[float] | list[_Run]) -> Sequence[float] | Sequence[_Run]:
    """What is in the list now; what other threads append meanwhile stays in it."""
    taken = pending[: len(pending)]
    del pending[: len(taken)]
    return taken


def _duration(spread: Spread) -> Duration:
    return Duration(spread.count, round(spread.total * 1e9))


def _none() -> int:
    return 0
