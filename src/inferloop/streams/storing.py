"""The outbox of a pipeline: its sinks behind it, its dead letters beside it, its counts in the summary."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from inferloop.core.clock import SYSTEM, Clock
from inferloop.core.errors import InferloopError
from inferloop.core.protocols import Delivery, Sink
from inferloop.streams.config import OutboxSection
from inferloop.streams.deciding import refusal_letter
from inferloop.streams.delivery.backoff import Backoff
from inferloop.streams.delivery.forwarding import ForwardingSink
from inferloop.streams.delivery.outbox import Outbox
from inferloop.streams.delivery.turns import TakingTurns
from inferloop.streams.events import Counters, EventKind, Observer, PipelineEvent
from inferloop.streams.loading import DEAD_LETTER

log = logging.getLogger(__name__)

Sinks = dict[str, tuple[Sink, bool]]


def outbox_of(section: OutboxSection, pipeline: str, clock: Clock = SYSTEM) -> Outbox:
    """The outbox that the file declares, not opened."""
    drop_oldest = section.when_full == "drop_oldest"
    return Outbox(section.sqlite.path, pipeline, max_bytes=section.max_size, drop_oldest=drop_oldest, clock=clock)


def behind(
    outbox: Outbox, section: OutboxSection, sinks: Mapping[str, tuple[Sink, bool]], told: ForwardingReport, clock: Clock = SYSTEM
) -> Sinks:
    """The sinks, each behind the outbox; the dead letters are used by all of them and stay before it."""
    letters = TakingTurns(sinks[DEAD_LETTER][0])
    told.letters = letters
    stored: Sinks = {DEAD_LETTER: (letters, True)}
    for name, (sink, required) in sinks.items():
        if name != DEAD_LETTER:
            stored[name] = (ForwardingSink(name, sink, outbox, told, max_age_s=section.max_age, clock=clock), required)
    return stored


class ForwardingReport:
    """Keeps `Forwarded`: counts, events and dead letters of what was stored."""

    def __init__(self, pipeline: str, counters: Counters, observer: Observer | None, *, clock: Clock = SYSTEM) -> None:
        self._clock = clock
        self._pipeline = pipeline
        self._counters = counters
        self._observer = observer
        self.letters: Sink | None = None

    def forwarded(self, sink: str, delivery: Delivery) -> None:
        """See `Forwarded.forwarded`."""
        self._counters.confirmed(sink)
        if self._observer is not None:
            self._observer(PipelineEvent(EventKind.DELIVERED, delivery.message_id, sinks=(sink,)))

    def retried(self, sink: str) -> None:
        """See `Forwarded.retried`."""
        self._counters.retried(sink)

    def dropped(self, sink: str, count: int) -> None:
        """See `Forwarded.dropped`."""
        self._counters.failed[sink] += count
        log.warning("outbox is full, its oldest deliveries were dropped", extra={"sink": sink, "deliveries": count})

    async def refused(self, sink: str, delivery: Delivery, reason: str) -> None:
        """See `Forwarded.refused`."""
        self._counters.refused[sink] += 1
        log.warning("sink refused a delivery", extra={"sink": sink, "reason": reason, "message_id": delivery.message_id})
        letter = refusal_letter(self._pipeline, sink, delivery, reason)
        backoff = Backoff(clock=self._clock)
        while self.letters is not None:
            try:
                await self.letters.send([letter])
                return
            except InferloopError as error:
                log.warning("dead letters are not taken", extra={"reason": error.message})
                await asyncio.sleep(backoff.failed())
