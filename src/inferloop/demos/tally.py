"""What a demo counts while its stream runs, from the pipeline's own events."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from inferloop.streams.events import EventKind, PipelineEvent

_RECENT = 8
_LATENCIES = 100_000


@dataclass(frozen=True, slots=True)
class Decided:
    """One decided message, for the table and for those who correct it.

    Attributes:
        truth: the label that people gave it.
        action: the rule that matched, or the reason why nothing is done.
        version: of the model that answered.
    """

    message_id: str
    topic: str
    text: str
    label: str
    score: float
    truth: str
    action: str
    prediction_id: str
    version: int


@dataclass(frozen=True, slots=True)
class Known:
    """What the demo knows of a message before it is sent: its topic, its text for the screen, and the truth."""

    topic: str
    text: str
    truth: str


class Tally:
    """Counts by event. Used on one event loop; `observe` is handed to the pipeline."""

    def __init__(self, known: Mapping[str, Known]) -> None:
        self._known = known
        self._latencies: deque[float] = deque(maxlen=_LATENCIES)
        self.decided: dict[str, Decided] = {}
        self.recent: deque[Decided] = deque(maxlen=_RECENT)
        self.actions: Counter[str] = Counter()
        self.rejected: set[str] = set()
        self.redelivered = 0
        self.acknowledged = 0
        self.version = 0

    def observe(self, event: PipelineEvent) -> None:
        """Count one event; quick, and it never raises."""
        if event.kind is EventKind.DECIDED:
            self._decide(event)
        elif event.kind is EventKind.REJECTED:
            self.rejected.add(event.message_id)
        elif event.kind is EventKind.REDELIVERED:
            self.redelivered += 1
        elif event.kind is EventKind.ACKNOWLEDGED:
            self.acknowledged += 1
            self._latencies.append(event.latency_s)

    @property
    def settled(self) -> int:
        """Messages with a decision, and dead letters."""
        return len(self.decided) + len(self.rejected)

    def percentile_ms(self, share: float) -> float:
        """From a message's arrival to its acknowledgment, in milliseconds; 0 before the first."""
        ordered = sorted(self._latencies)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1e3 if ordered else 0.0

    def right(self, ids: Iterable[str]) -> float:
        """The share of these messages whose label was right; of those that are decided."""
        found = [self.decided[each] for each in ids if each in self.decided]
        return sum(each.label == each.truth for each in found) / len(found) if found else 0.0

    def _decide(self, event: PipelineEvent) -> None:
        known = self._known.get(event.message_id, Known("", "", ""))
        decided = Decided(
            message_id=event.message_id,
            topic=known.topic,
            text=known.text,
            label=event.label,
            score=event.score,
            truth=known.truth,
            action=event.reason or event.rule,
            prediction_id=event.prediction_id,
            version=event.version,
        )
        self.decided[event.message_id] = decided
        self.recent.append(decided)
        self.actions[decided.action] += 1
        self.version = max(self.version, event.version)
