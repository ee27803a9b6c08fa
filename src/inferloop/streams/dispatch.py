"""Work under way: decisions out to the lanes, confirmations back, and the end of each message told to its source."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence

from inferloop.core.clock import SYSTEM, Clock
from inferloop.core.protocols import Delivery
from inferloop.data.journal import Journal, StoredDelivery
from inferloop.streams.deciding import refusal_letter
from inferloop.streams.delivery.acks import AckSequencer
from inferloop.streams.delivery.lane import Lane
from inferloop.streams.events import Counters, EventKind, Observer, PipelineEvent
from inferloop.streams.loading import DEAD_LETTER
from inferloop.streams.work import Arrival, Parcel, Work

log = logging.getLogger(__name__)


class Dispatcher:
    """Owns what is in flight, by message id. Used on the event loop only; keeps `lane.Outcome`.

    Args:
        lanes: by sink, that of the dead letters included.
        sequencers: by number of the source.
    """

    def __init__(
        self,
        pipeline: str,
        journal: Journal,
        counters: Counters,
        *,
        observer: Observer | None,
        sequencers: Sequence[AckSequencer],
        clock: Clock = SYSTEM,
    ) -> None:
        self._clock = clock
        self._pipeline = pipeline
        self._journal = journal
        self._counters = counters
        self._observer = observer
        self._sequencers = sequencers
        self._lanes: Mapping[str, Lane] = {}
        self._in_flight: dict[str, Work] = {}
        self._settled: list[str] = []
        self._active = 0
        self._idle = asyncio.Event()
        self._idle.set()

    def use(self, lanes: Mapping[str, Lane]) -> None:
        """Set the lanes; they need the dispatcher and it needs them."""
        self._lanes = lanes

    def admit(self, works: Sequence[Work]) -> list[Work]:
        """Those that are not under way yet; the others wait for the end of the work that is."""
        fresh: list[Work] = []
        for work in works:
            before = self._in_flight.get(work.id)
            if before is None:
                self._start(work)
                fresh.append(work)
                continue
            self._counters.found()
            before.arrivals.extend(work.arrivals)
            if before.settled:
                self._tell_sources(work.arrivals)
        return fresh

    def recover(self, works: Sequence[Work]) -> None:
        """Take up decisions of an earlier run."""
        for work in works:
            self._counters.recovered += 1
            self._start(work)

    async def dispatch(self, work: Work) -> None:
        """Put every delivery that was not confirmed yet on its lane; waits where a required lane is full."""
        decision = work.decision
        deliveries = [] if decision is None else [delivery for delivery in decision.deliveries if not delivery.delivered]
        parcels = [self._parcel(work, stored) for stored in deliveries]
        work.outstanding = sum(parcel.required for parcel in parcels)
        for parcel in parcels:
            await self._lanes[parcel.sink].put(parcel)
        if not work.outstanding:
            self._settle(work)

    async def wait_idle(self) -> None:
        """Wait until everything that was admitted is settled."""
        await self._idle.wait()

    def take_settled(self) -> list[str]:
        """Ids settled since the last call; hand them to `forget` once the journal knows of their deliveries."""
        settled, self._settled = self._settled, []
        return settled

    def forget(self, ids: Sequence[str]) -> None:
        """From now on the journal alone answers for these messages."""
        for id_ in ids:
            self._in_flight.pop(id_, None)

    def confirmed(self, parcel: Parcel) -> None:
        """See `Outcome.confirmed`."""
        self._finish(parcel)
        if self._lanes[parcel.sink].stores:
            self._counters.stored[parcel.sink] += 1
            self._emit(EventKind.STORED, parcel, "")
        else:
            self._counters.confirmed(parcel.sink)
            self._emit(EventKind.DELIVERED, parcel, "")

    async def refused(self, parcel: Parcel, reason: str) -> None:
        """See `Outcome.refused`."""
        self._counters.refused[parcel.sink] += 1
        log.warning("sink refused a delivery", extra={"sink": parcel.sink, "reason": reason, "message_id": parcel.work.id})
        await self._lanes[DEAD_LETTER].put(self._refusal(parcel.work, parcel.stands_for, reason))

    def lost(self, parcel: Parcel, reason: str) -> None:
        """See `Outcome.lost`."""
        self._counters.failed[parcel.sink] += 1
        self._finish(parcel)
        self._emit(EventKind.GAVE_UP, parcel, reason)

    def retried(self, sink: str) -> None:
        """See `Outcome.retried`."""
        self._counters.retried(sink)

    def _start(self, work: Work) -> None:
        self._in_flight[work.id] = work
        self._active += 1
        self._idle.clear()

    def _parcel(self, work: Work, stored: StoredDelivery) -> Parcel:
        lane = self._lanes.get(stored.sink)
        if lane is None:
            return self._refusal(work, stored, f"the pipeline has no sink {stored.sink!r} any more")
        return Parcel(work, stored.sink, Delivery(stored.key, stored.payload, work.id), lane.required, stored)

    def _refusal(self, work: Work, stored: StoredDelivery, reason: str) -> Parcel:
        original = {"payload": work.message.payload.decode("utf-8", "replace")} if work.arrivals else {}
        refused = Delivery(stored.key, stored.payload, work.id)
        letter = refusal_letter(self._pipeline, stored.sink, refused, reason, **original)
        return Parcel(work, DEAD_LETTER, letter, True, stored)

    def _finish(self, parcel: Parcel) -> None:
        """Note that a stored delivery is done, and settle its message with the last required one."""
        work, stored = parcel.work, parcel.stands_for
        work.confirmed.add(stored.key)
        decision = work.decision
        same = [] if decision is None else [other for other in decision.deliveries if other.sink == stored.sink]
        if all(other.delivered or other.key in work.confirmed for other in same):
            self._journal.delivered(self._pipeline, work.id, stored.sink)
        if parcel.required:
            work.outstanding -= 1
            if not work.outstanding:
                self._settle(work)

    def _settle(self, work: Work) -> None:
        work.settled = True
        self._settled.append(work.id)
        self._tell_sources(work.arrivals)
        self._active -= 1
        if not self._active:
            self._idle.set()

    def _tell_sources(self, arrivals: Sequence[Arrival]) -> None:
        for arrival in arrivals:
            self._sequencers[arrival.source].settle(arrival)

    def _emit(self, kind: EventKind, parcel: Parcel, reason: str) -> None:
        if self._observer is None:
            return
        work, decision = parcel.work, parcel.work.decision
        if decision is None:
            return
        arrived = work.message if work.arrivals else None
        self._observer(
            PipelineEvent(
                kind,
                work.id,
                source=arrived.source if arrived is not None else "",
                key=decision.key,
                label=decision.label,
                score=decision.score,
                rule=decision.rule,
                reason=reason,
                sinks=(parcel.sink,),
                prediction_id=decision.prediction_id,
                latency_s=self._clock.time() - arrived.received if arrived is not None else 0.0,
            )
        )
