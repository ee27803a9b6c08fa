"""One run of a pipeline, end to end.

    readers ─> intake ─> prepare ─> find ─> score ─> [1] ─> decide + journal ─> lanes ─> sinks
       ^                              └── decided before ──────────────────────────^        │
       └─────────────────────── acknowledge in read order <── settled <─────────────────────┘

Each stage is one task, each queue has a bound, so a slow sink holds up the source and nothing grows. The journal is used by
one thread, decoding by another; the event loop only moves references.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from inferloop.core.clock import SYSTEM, Clock
from inferloop.core.errors import StorageError
from inferloop.core.protocols import Sink, Source
from inferloop.data.journal import StoredDecision
from inferloop.data.ledger.ledger import Ledger
from inferloop.data.ledger.records import DecisionRecord
from inferloop.streams.compiling import fields_read
from inferloop.streams.deciding import Decider, Draft
from inferloop.streams.delivery.acks import AckSequencer
from inferloop.streams.delivery.forwarding import ForwardingSink
from inferloop.streams.delivery.lane import Lane
from inferloop.streams.dispatch import Dispatcher
from inferloop.streams.events import Counters, EventKind, Observer, PipelineEvent
from inferloop.streams.gathering import Gatherer
from inferloop.streams.intake import Intake
from inferloop.streams.journaling import JournalThread
from inferloop.streams.loading import PipelineSpec
from inferloop.streams.preparing import prepare
from inferloop.streams.scope import event_time, recordable
from inferloop.streams.scoring import Scorer
from inferloop.streams.work import Arrival, Work

log = logging.getLogger(__name__)

_FLUSH_S = 0.1
_OPTIONAL_DRAIN_S = 1.0
_INTAKE_BATCHES = 8


@dataclass(frozen=True, slots=True)
class Parts:
    """What a run is made of; opened and closed by whoever made it.

    Attributes:
        sources: in the order of the pipeline file.
        sinks: by name, with whether they are required; the dead letters under `dead_letter`.
        positions: positions of sources to be stored with the next decisions; taken from here.
    """

    sources: Sequence[Source]
    sinks: Mapping[str, tuple[Sink, bool]]
    decider: Decider
    scorer: Scorer
    journal: JournalThread
    positions: dict[str, bytes]
    gatherer: Gatherer | None = None
    ledger: Ledger | None = None
    observer: Observer | None = None
    clock: Clock = SYSTEM


class Runner:
    """Moves messages from open sources to open sinks until the sources end or it is told to stop."""

    def __init__(self, spec: PipelineSpec, parts: Parts, counters: Counters) -> None:
        self._spec = spec
        self._parts = parts
        self._counters = counters
        batch = spec.model.batch
        self._intake = Intake(_INTAKE_BATCHES * batch.max)
        self._sequencers = [AckSequencer(source, self._acknowledged) for source in parts.sources]
        self._dispatcher = Dispatcher(
            spec.name, parts.journal.journal, counters, observer=parts.observer, sequencers=self._sequencers, clock=parts.clock
        )
        self._lanes = {
            name: Lane(name, sink, self._dispatcher, required=required, last=name == "dead_letter", clock=parts.clock)
            for name, (sink, required) in parts.sinks.items()
        }
        self._dispatcher.use(self._lanes)
        self._scored: asyncio.Queue[list[Work] | None] = asyncio.Queue(1)
        self._decoding = ThreadPoolExecutor(1, thread_name_prefix=f"decode-{spec.name}")
        self._tasks: list[asyncio.Task[None]] = []
        self._to_keep: list[str] = []
        self._read_by_rules = fields_read(spec.rules, spec.kinds)
        self._keeping = {name for name, (sink, _) in parts.sinks.items() if getattr(sink, "keeps_input", False)}

    async def run(self, stop: asyncio.Event, *, drain_s: float) -> bool:
        """Run until every source has ended, or until `stop` is set and what was read is done.

        Returns:
            Whether everything that was read was done; false if `drain_s` seconds after `stop` something was not. That
            stays unacknowledged and comes again.
        """
        recovered = await self._recover()  # admitted before anything is read, so that a redelivery joins it
        service = [self._start(lane.run()) for lane in self._lanes.values()]
        service += [self._start(sequencer.run()) for sequencer in self._sequencers]
        service.append(self._start(self._flush_for_ever()))
        stages = [self._start(self._score()), self._start(self._decide(recovered))]
        readers = [self._start(self._read(index, source)) for index, source in enumerate(self._parts.sources)]
        try:
            await self._first(stop.wait(), _all(readers), service + stages + readers)
            for reader in readers:
                reader.cancel()
            self._intake.close()
            return await self._drain(stages, service, stop, drain_s)
        finally:
            await self._end()

    async def _drain(
        self, stages: Sequence[asyncio.Task[None]], service: Sequence[asyncio.Task[None]], stop: asyncio.Event, limit_s: float
    ) -> bool:
        """Finish what was read; without a limit until `stop` is set, also where the sources ended by themselves."""
        finishing = asyncio.create_task(self._finished(stages, stop))
        try:
            await self._first(asyncio.shield(finishing), stop.wait(), service)
            async with asyncio.timeout(limit_s):
                await self._first(asyncio.shield(finishing), _never(), service)
        except TimeoutError:
            left = sum(sequencer.unacknowledged for sequencer in self._sequencers)
            log.warning("stopped before everything was delivered; the rest comes again", extra={"messages": left})
            return False
        finally:
            finishing.cancel()
            await asyncio.gather(finishing, return_exceptions=True)
        return True

    async def _finished(self, stages: Sequence[asyncio.Task[None]], stop: asyncio.Event) -> None:
        await asyncio.gather(*stages)
        for lane in self._lanes.values():
            lane.hurry()
        await self._dispatcher.wait_idle()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_OPTIONAL_DRAIN_S):
                await asyncio.gather(*(lane.wait_idle() for lane in self._lanes.values() if not lane.required))
        if not stop.is_set():  # the sources ended by themselves: somebody waits for the effects
            await asyncio.gather(*(lane.sink.drained() for lane in self._lanes.values() if isinstance(lane.sink, ForwardingSink)))

    async def _first(self, one: Awaitable[Any], other: Awaitable[Any], watched: Sequence[asyncio.Task[None]]) -> None:
        """Wait for either; a watched task that ends with an error ends the run with it."""
        waits = [asyncio.ensure_future(one), asyncio.ensure_future(other)]
        pending: set[asyncio.Future[Any]] = {*waits, *watched}
        try:
            while not any(wait.done() for wait in waits):
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)

    async def _end(self) -> None:
        """Stop every task, then acknowledge and note what is done."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for sequencer in self._sequencers:
            await sequencer.flush()
        await self._keep_inputs()
        await self._save_positions()
        self._decoding.shutdown(wait=True, cancel_futures=True)

    async def _save_positions(self) -> None:
        """Positions that no decision has carried along yet; without them the last messages are read and found again."""
        journal, positions = self._parts.journal, dict(self._parts.positions)
        if not positions:
            return
        try:
            await asyncio.to_thread(journal.journal.save_state, self._spec.name, positions)
        except StorageError as error:
            log.warning("positions not stored", extra={"pipeline": self._spec.name, "reason": error.message})

    async def _recover(self) -> list[Work]:
        """What an earlier run decided and did not get delivered."""
        journal = self._parts.journal
        pending = await journal.call(lambda: journal.journal.pending(self._spec.name))
        works = [Work(decision.message_id, decision=decision) for decision in pending]
        if works:
            log.info("delivering decisions of an earlier run", extra={"decisions": len(works)})
        self._dispatcher.recover(works)
        return works

    async def _read(self, index: int, source: Source) -> None:
        sequencer = self._sequencers[index]
        name = self._spec.sources[index].name
        while messages := await source.read():
            arrivals = [Arrival(message, index) for message in messages]
            for arrival in arrivals:
                sequencer.expect(arrival)
            self._counters.read(name, len(arrivals))
            await self._intake.put(arrivals)
            await sequencer.room()

    async def _score(self) -> None:
        batch = self._spec.model.batch
        loop = asyncio.get_running_loop()
        if self._parts.gatherer is not None and (due := self._parts.gatherer.due()):
            self._counters.windows += len(due)
            await self._forward(self._dispatcher.admit(due))
        group = _INTAKE_BATCHES * batch.max  # of a backlog: what is done once a group costs less
        while arrivals := await self._intake.take(batch.max, delay_s=batch.max_delay, most=group):
            works = await loop.run_in_executor(self._decoding, prepare, self._spec.codec, arrivals)
            fresh = self._dispatcher.admit(works)
            found = await self._find(fresh)
            for work in fresh:
                work.decision = found.get(work.id)
            await self._forward(fresh if self._parts.gatherer is None else await self._gather(self._parts.gatherer, fresh))
        await self._scored.put(None)

    async def _forward(self, works: Sequence[Work]) -> None:
        """Score what needs it, and hand everything on to be decided."""
        self._mark_stale(works)
        await self._parts.scorer.score([work for work in works if _needs_model(work)])
        self._mark_stale(works)
        await self._scored.put(list(works))

    async def _gather(self, gatherer: Gatherer, works: Sequence[Work]) -> list[Work]:
        """Samples end here, windows take their place."""
        samples = [work for work in works if work.decision is None and work.error is None]
        positions = dict(self._parts.positions)
        windows = await gatherer.gather(samples, positions)
        self._stored(positions)
        done = [work for work in samples if work.decision is not None]
        for work in done:
            self._counters.decided("", work.decision.reason if work.decision is not None else "")
            self._tell(EventKind.DECIDED, work)
            await self._dispatcher.dispatch(work)
        self._counters.windows += len(windows)
        return [work for work in works if work not in done] + self._dispatcher.admit(windows)

    def _stored(self, positions: Mapping[str, bytes]) -> None:
        """These positions are on disk; a newer one is still to come there."""
        for name, position in positions.items():
            if self._parts.positions.get(name) == position:
                del self._parts.positions[name]

    async def _find(self, works: Sequence[Work]) -> dict[str, StoredDecision]:
        journal = self._parts.journal
        ids = [work.id for work in works]
        if not ids:
            return {}
        return await journal.call(lambda: journal.journal.find(self._spec.name, ids), on=self._decoding)

    def _mark_stale(self, works: Sequence[Work]) -> None:
        limit_s = self._spec.model.max_age
        if limit_s is None:
            return
        now = self._parts.clock.time()
        for work in works:
            if work.sample is not None and now - event_time(work.sample, work.message.received) > limit_s:
                work.stale = True

    async def _decide(self, recovered: Sequence[Work]) -> None:
        for work in recovered:
            await self._dispatcher.dispatch(work)
        while (works := await self._scored.get()) is not None:
            new = [work for work in works if work.decision is None]
            for work in works:
                if work.decision is not None:
                    self._counters.found()
                    self._tell(EventKind.REDELIVERED, work)
            if new:
                await self._store(new)
            for work in works:
                await self._dispatcher.dispatch(work)

    async def _store(self, works: list[Work]) -> None:
        """Decide and put on disk; a failed write is tried again with the same decisions."""
        drafts: list[Draft] = []
        positions = dict(self._parts.positions)

        def decide_and_write() -> None:
            if not drafts:
                drafts.append(self._parts.decider.draft(works))
            self._parts.decider.write(drafts[0], positions)

        await self._parts.journal.call(decide_and_write)
        self._stored(positions)
        for rule in drafts[0].skipped:
            self._counters.skip(rule)
        for work in works:
            self._account(work)

    def _account(self, work: Work) -> None:
        decision = work.decision
        if decision is None:
            return
        if work.error is not None:
            self._counters.rejected(work.error_kind)
            self._tell(EventKind.REJECTED, work)
            return
        self._counters.decided(decision.rule, decision.reason)
        self._tell(EventKind.DECIDED, work)
        if self._parts.ledger is not None:
            sinks = tuple(delivery.sink for delivery in decision.deliveries)
            self._parts.ledger.append(self._record(work, decision, sinks))
            if decision.prediction_id and not self._keeping.isdisjoint(sinks):
                self._to_keep.append(decision.prediction_id)

    def _record(self, work: Work, decision: StoredDecision, sinks: tuple[str, ...]) -> DecisionRecord:
        sample = work.sample
        return DecisionRecord(
            work.id,
            decision.prediction_id,
            self._spec.name,
            decision.rule,
            sinks,
            decision.time,
            decision.reason,
            decision.key,
            None if sample is None else event_time(sample, work.message.received),
            decision.score,
            {} if sample is None else recordable(sample.fields, self._read_by_rules),
        )

    def _tell(self, kind: EventKind, work: Work) -> None:
        observer, decision = self._parts.observer, work.decision
        if observer is None or decision is None:
            return
        observer(
            PipelineEvent(
                kind,
                work.id,
                source=work.message.source,
                key=decision.key,
                label=decision.label,
                score=decision.score,
                rule=decision.rule,
                reason=decision.reason,
                sinks=tuple(delivery.sink for delivery in decision.deliveries),
                prediction_id=decision.prediction_id,
                version=work.scored.version if work.scored is not None else 0,
                fields=work.sample.fields if work.sample is not None else {},
                latency_s=self._parts.clock.time() - work.message.received,
            )
        )

    def _acknowledged(self, arrival: Arrival) -> None:
        latency_s = self._parts.clock.time() - arrival.message.received
        self._counters.acknowledge(latency_s)
        if self._parts.observer is not None:
            event = PipelineEvent(EventKind.ACKNOWLEDGED, "", source=arrival.message.source, latency_s=latency_s)
            self._parts.observer(event)

    async def _flush_for_ever(self) -> None:
        """Note confirmed deliveries in the journal now and then, and let it answer for the messages that are done."""
        journal = self._parts.journal
        while True:
            await asyncio.sleep(_FLUSH_S)
            await self._keep_inputs()
            settled = self._dispatcher.take_settled()
            if settled:
                await journal.call(journal.journal.flush)
                self._dispatcher.forget(settled)

    async def _keep_inputs(self) -> None:
        """Let the ledger keep what waits for a human."""
        ledger, (ids, self._to_keep) = self._parts.ledger, (self._to_keep, [])
        if ledger is None or not ids:
            return
        try:
            await asyncio.to_thread(_keep_all, ledger, ids)
        except StorageError as error:
            log.warning("ledger does not keep inputs under review", extra={"reason": error.message, "inputs": len(ids)})

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.append(task)
        return task


def _needs_model(work: Work) -> bool:
    return work.decision is None and work.error is None and not work.stale


def _keep_all(ledger: Ledger, ids: Sequence[str]) -> None:
    for id_ in ids:
        ledger.keep(id_)


async def _all(tasks: Sequence[asyncio.Task[None]]) -> None:
    await asyncio.gather(*tasks)


async def _never() -> None:
    await asyncio.Event().wait()
