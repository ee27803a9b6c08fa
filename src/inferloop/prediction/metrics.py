"""What the meters counted, as metrics of Prometheus: put together when it is scraped, for the versions that are loaded.

Two that are loaded under one name and version are exported as one. A version that is unloaded is gone from the next scrape.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING
from weakref import WeakSet

from prometheus_client import REGISTRY
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from inferloop.core import telemetry
from inferloop.core.telemetry import Exported
from inferloop.prediction.machine import Machine
from inferloop.prediction.spread import Spread

if TYPE_CHECKING:
    from inferloop.prediction.meter import Meter, Snapshot, Totals

Labels = tuple[str, ...]

_REASONS = {
    "unavailable": "REJECTED",
    "deadline_exceeded": "REJECTED",
    "cancelled": "CANCELED",
    "internal": "BACKEND",
}
_OTHER = "OTHER"
_SHARES = (0.5, 0.9, 0.95, 0.99, 0.999)
_US = 1e6
_MS = 1e3


def export(meter: Meter) -> None:
    """Let the scrapes show a meter from now on; it is not kept alive for that."""
    _exporter.add(meter)


def withdraw(meter: Meter) -> None:
    """Let the scrapes show it no longer."""
    _exporter.discard(meter)


class Exporter(Collector):
    """Collects all meters of this process. Any thread."""

    def __init__(self) -> None:
        self._meters: WeakSet[Meter] = WeakSet()
        self._lock = threading.Lock()
        self._machine = Machine()

    def add(self, meter: Meter) -> None:
        """See `export`."""
        with self._lock:
            self._meters.add(meter)

    def discard(self, meter: Meter) -> None:
        """See `withdraw`."""
        with self._lock:
            self._meters.discard(meter)

    def describe(self) -> Iterable[Metric]:
        """See `prometheus_client.registry.Collector`: the names are known without counting."""
        return [exported.family() for exported in vars(telemetry).values() if isinstance(exported, Exported)]

    def collect(self) -> Iterator[Metric]:
        """See `prometheus_client.registry.Collector`."""
        with self._lock:
            meters = list(self._meters)
        found: dict[Labels, Totals] = {}
        for meter in meters:
            totals = meter.totals()
            found[meter.labels] = _sum(found[meter.labels], totals) if meter.labels in found else totals
        samples = _Samples()
        for labels, totals in sorted(found.items()):
            _own(samples, labels, totals)
            _triton(samples, labels, totals)
        self._of_the_machine(samples)
        return iter(samples.families.values())

    def _of_the_machine(self, samples: _Samples) -> None:
        reading = self._machine.read()
        if reading is not None:
            samples.number(telemetry.NV_CPU, (), reading.utilization)
            samples.number(telemetry.NV_MEMORY_TOTAL, (), reading.memory_bytes)
            samples.number(telemetry.NV_MEMORY_USED, (), reading.used_bytes)


class _Samples:
    """Families on their way to the text."""

    def __init__(self) -> None:
        self.families = {name: each.family() for name, each in vars(telemetry).items() if isinstance(each, Exported)}
        self._named = {each: self.families[name] for name, each in vars(telemetry).items() if isinstance(each, Exported)}

    def number(self, metric: Exported, labels: Labels, value: float) -> None:
        """One counter or gauge."""
        suffix = "_total" if metric.type == "counter" and not metric.triton else ""
        self._add(metric, suffix, dict(zip(metric.labels, labels, strict=True)), value)

    def histogram(self, metric: Exported, labels: Labels, spread: Spread, *, scale: float = 1.0) -> None:
        """All buckets of one histogram."""
        named = dict(zip(metric.labels, labels, strict=True))
        below = 0
        for bound, count in zip((*spread.bounds, float("inf")), spread.counts.tolist(), strict=True):
            below += count
            self._add(metric, "_bucket", {**named, "le": _bound(bound * scale)}, below)
        self._add(metric, "_count", named, spread.count)
        self._add(metric, "_sum", named, spread.total * scale)

    def summary(self, metric: Exported, labels: Labels, spread: Spread) -> None:
        """Quantiles of the latest values, in microseconds."""
        named = dict(zip(metric.labels, labels, strict=True))
        for share, value in zip(_SHARES, spread.quantiles(_SHARES), strict=False):
            self._add(metric, "", {**named, "quantile": str(share)}, value * _US)
        self._add(metric, "_count", named, spread.count)
        self._add(metric, "_sum", named, spread.total * _US)

    def _add(self, metric: Exported, suffix: str, labels: dict[str, str], value: float) -> None:
        self._named[metric].add_sample(metric.name + suffix, labels, value)


def _own(samples: _Samples, labels: Labels, totals: Totals) -> None:
    for outcome, count in sorted(totals.outcomes.items()):
        samples.number(telemetry.REQUESTS, (*labels, outcome), count)
    samples.histogram(telemetry.REQUEST_SECONDS, labels, totals.request)
    samples.histogram(telemetry.QUEUE_SECONDS, labels, totals.queue)
    samples.histogram(telemetry.BATCH_ROWS, labels, totals.batch_rows)
    samples.histogram(telemetry.ENGINE_SECONDS, labels, totals.engine)
    samples.number(telemetry.ENGINE_FAILURES, labels, totals.engine_failures)
    samples.number(telemetry.SHADOW_FAILURES, labels, totals.shadow_failures)


def _triton(samples: _Samples, labels: Labels, totals: Totals) -> None:
    snapshot = totals.snapshot
    for reason, failed in _by_reason(totals.outcomes).items():
        samples.number(telemetry.NV_FAILURE, (*labels, reason), failed)
    for metric, value in (
        (telemetry.NV_SUCCESS, snapshot.success.count),
        (telemetry.NV_COUNT, snapshot.inference_count),
        (telemetry.NV_EXECUTIONS, snapshot.execution_count),
        (telemetry.NV_PENDING, totals.pending),
        (telemetry.NV_CACHE_HITS, snapshot.cache_hit.count),
        (telemetry.NV_CACHE_MISSES, snapshot.cache_miss.count),
        (telemetry.NV_CACHE_HIT_US, snapshot.cache_hit.ns // 1000),
        (telemetry.NV_CACHE_MISS_US, snapshot.cache_miss.ns // 1000),
    ):
        samples.number(metric, labels, value)
    for sum_us, summary, spread in (
        (telemetry.NV_REQUEST_US, telemetry.NV_REQUEST_SUMMARY, totals.request),
        (telemetry.NV_QUEUE_US, telemetry.NV_QUEUE_SUMMARY, totals.queue),
        (telemetry.NV_INPUT_US, telemetry.NV_INPUT_SUMMARY, totals.input),
        (telemetry.NV_INFER_US, telemetry.NV_INFER_SUMMARY, totals.infer),
        (telemetry.NV_OUTPUT_US, telemetry.NV_OUTPUT_SUMMARY, totals.output),
    ):
        samples.number(sum_us, labels, round(spread.total * _US))
        samples.summary(summary, labels, spread)
    if totals.first_response.count:
        samples.histogram(telemetry.NV_FIRST_MS, labels, totals.first_response, scale=_MS)


def _by_reason(outcomes: Counter[str]) -> Counter[str]:
    """Failures as Triton sorts them; all reasons are there from the start."""
    found = Counter(dict.fromkeys((*_REASONS.values(), _OTHER), 0))
    for outcome, count in outcomes.items():
        if outcome != "ok":
            found[_REASONS.get(outcome, _OTHER)] += count
    return found


def _sum(first: Totals, second: Totals) -> Totals:
    """Two sets of numbers under one name."""
    for mine, other in zip(first, second, strict=True):
        if isinstance(mine, Spread) and isinstance(other, Spread):
            mine.merge(other)
    outcomes = first.outcomes.copy()
    outcomes.update(second.outcomes)  # `+` would drop zeros
    return first._replace(
        snapshot=_statistics(first.snapshot, second.snapshot),
        outcomes=outcomes,
        engine_failures=first.engine_failures + second.engine_failures,
        shadow_failures=first.shadow_failures + second.shadow_failures,
        pending=first.pending + second.pending,
    )


def _statistics(first: Snapshot, second: Snapshot) -> Snapshot:
    """The part of them that is exported."""
    return first._replace(
        success=first.success + second.success,
        cache_hit=first.cache_hit + second.cache_hit,
        cache_miss=first.cache_miss + second.cache_miss,
        inference_count=first.inference_count + second.inference_count,
        execution_count=first.execution_count + second.execution_count,
    )


def _bound(value: float) -> str:
    return "+Inf" if value == float("inf") else str(float(value))


_exporter = Exporter()
REGISTRY.register(_exporter)
