"""What a running pipeline tells an observer, and the counters that remain when it ends."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import islice
from typing import Any

from prometheus_client import Counter as PrometheusCounter

from inferloop.core import telemetry
from inferloop.core.clock import SYSTEM, Clock

_LATENCIES_KEPT = 100_000


class EventKind(StrEnum):
    """What happened to a message."""

    DECIDED = "decided"
    REJECTED = "rejected"
    REDELIVERED = "redelivered"
    DELIVERED = "delivered"
    STORED = "stored"
    GAVE_UP = "gave_up"
    ACKNOWLEDGED = "acknowledged"


@dataclass(frozen=True, slots=True)
class PipelineEvent:
    """One step of one message.

    Attributes:
        kind: `decided` (a Decision is in the journal), `rejected` (a dead letter is), `redelivered` (it was decided before),
            `delivered`, `stored` (in the outbox) and `gave_up` (one sink), `acknowledged` (done).
        rule: the rules that matched; empty if none did.
        reason: why nothing is sent, or why it was rejected.
        sinks: those that the decision goes to; for `delivered` and `gave_up` the one sink.
        fields: the decoded values; empty for `rejected`.
        latency_s: seconds since the message arrived.
    """

    kind: EventKind
    message_id: str
    source: str = ""
    key: str = ""
    label: str = ""
    score: float = 0.0
    rule: str = ""
    reason: str = ""
    sinks: tuple[str, ...] = ()
    prediction_id: str = ""
    version: int = 0
    fields: Mapping[str, Any] = field(default_factory=dict)
    latency_s: float = 0.0


Observer = Callable[[PipelineEvent], None]
"""Called on the event loop; it must be quick and must not raise."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run did: `messages + windows == decisions + dead_letters + redelivered` once everything that was read is done.

    Attributes:
        windows: made of messages; each of them is decided as one.
        redelivered: messages whose decision existed already.
        delivered: confirmed effects by sink; `refused` and `failed` those that a sink refused for good or an optional sink lost;
            `stored` those that the outbox took, to be delivered later.
        rules: decisions by rule; `reasons`: decisions that do not act, and dead letters, by reason.
        recovered: decisions of an earlier run whose effects were still to be delivered.
        dropped: messages of live sources that were left out, by source; they are in no other count.
        p50_ms: from arrival to acknowledgement, of the last 100,000 messages.
    """

    pipeline: str
    messages: int
    windows: int
    decisions: int
    dead_letters: int
    redelivered: int
    recovered: int
    acknowledged: int
    delivered: Mapping[str, int]
    stored: Mapping[str, int]
    refused: Mapping[str, int]
    failed: Mapping[str, int]
    retries: Mapping[str, int]
    rules: Mapping[str, int]
    reasons: Mapping[str, int]
    dropped: Mapping[str, int]
    p50_ms: float
    p99_ms: float
    seconds: float


class Counters:
    """Counts a run, here and in the metrics. Used on the event loop only."""

    def __init__(self, pipeline: str, *, clock: Clock = SYSTEM) -> None:
        self._pipeline = pipeline
        self._clock = clock
        self._started = clock.monotonic()
        self._latencies: deque[float] = deque(maxlen=_LATENCIES_KEPT)
        self._seconds = telemetry.DELIVERY_SECONDS.labels(pipeline)
        self._decisions: dict[str, PrometheusCounter] = {}
        self._deliveries: dict[str, PrometheusCounter] = {}
        self.windows = 0
        self.messages = self.decisions = self.dead_letters = self.redelivered = self.recovered = self.acknowledged = 0
        self.delivered: Counter[str] = Counter()
        self.stored: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self.retries: Counter[str] = Counter()
        self.rules: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()

    def read(self, source: str, count: int) -> None:
        """Messages came from a source."""
        self.messages += count
        telemetry.MESSAGES.labels(self._pipeline, source).inc(count)

    def drop(self, source: str, reason: str, count: int) -> None:
        """Messages of a live source were left out, because of its `rate` or because its buffer was `full`."""
        self.dropped[source] += count
        telemetry.DROPPED.labels(self._pipeline, source, reason).inc(count)

    def decided(self, rule: str, reason: str) -> None:
        """A Decision is in the journal."""
        self.decisions += 1
        if rule:
            self.rules[rule] += 1
        if reason:
            self.reasons[reason] += 1
        name = reason or rule
        if name not in self._decisions:
            self._decisions[name] = telemetry.DECISIONS.labels(self._pipeline, name)
        self._decisions[name].inc()

    def rejected(self, reason: str) -> None:
        """A dead letter is in the journal."""
        self.dead_letters += 1
        self.reasons[reason] += 1
        telemetry.DEAD_LETTERS.labels(self._pipeline, reason).inc()

    def found(self) -> None:
        """A message came again."""
        self.redelivered += 1
        telemetry.REDELIVERED.labels(self._pipeline).inc()

    def confirmed(self, sink: str) -> None:
        """A sink confirmed an effect."""
        self.delivered[sink] += 1
        if sink not in self._deliveries:
            self._deliveries[sink] = telemetry.DELIVERIES.labels(self._pipeline, sink)
        self._deliveries[sink].inc()

    def retried(self, sink: str) -> None:
        """A delivery is tried again."""
        self.retries[sink] += 1
        telemetry.DELIVERY_RETRIES.labels(self._pipeline, sink).inc()

    def acknowledge(self, latency_s: float) -> None:
        """A message is done."""
        self.acknowledged += 1
        self._latencies.append(latency_s)
        self._seconds.observe(latency_s)

    def skip(self, rule: str) -> None:
        """A condition touched a missing value."""
        telemetry.RULE_SKIPPED.labels(self._pipeline, rule).inc()

    def latency_ms(self, share: float, *, last: int) -> float:
        """From arrival to acknowledgement, of the last so many messages; `share` 0.5 for the median."""
        return _percentile(sorted(islice(reversed(self._latencies), last)), share) * 1e3

    def summary(self) -> Summary:
        """The counts so far."""
        ordered = sorted(self._latencies)
        return Summary(
            pipeline=self._pipeline,
            messages=self.messages,
            windows=self.windows,
            decisions=self.decisions,
            dead_letters=self.dead_letters,
            redelivered=self.redelivered,
            recovered=self.recovered,
            acknowledged=self.acknowledged,
            delivered=dict(self.delivered),
            stored=dict(self.stored),
            refused=dict(self.refused),
            failed=dict(self.failed),
            retries=dict(self.retries),
            rules=dict(self.rules),
            reasons=dict(self.reasons),
            dropped=dict(self.dropped),
            p50_ms=_percentile(ordered, 0.50) * 1e3,
            p99_ms=_percentile(ordered, 0.99) * 1e3,
            seconds=self._clock.monotonic() - self._started,
        )


def _percentile(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0
