"""The way to one sink: a bounded queue, one task that sends in order, retries until confirmed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Protocol

from inferloop.core.clock import SYSTEM, Clock
from inferloop.core.errors import InferloopError, InvalidInput
from inferloop.core.protocols import Sink
from inferloop.streams.delivery.backoff import OPENS_AFTER, Backoff
from inferloop.streams.work import Parcel

log = logging.getLogger(__name__)

QUEUE_PARCELS = 1024
BATCH_PARCELS = 128
OPTIONAL_TRIES = 3
_LOG_EVERY = 10


class Outcome(Protocol):
    """Who hears what became of a parcel. Called on the event loop."""

    def confirmed(self, parcel: Parcel) -> None:
        """The sink has it."""

    async def refused(self, parcel: Parcel, reason: str) -> None:
        """A required sink refused it for good; returns once it is on its way to the dead letters."""

    def lost(self, parcel: Parcel, reason: str) -> None:
        """An optional sink does not get it."""

    def retried(self, sink: str) -> None:
        """It is tried again."""


class Lane:
    """Sends parcels to one sink, one after the other.

    Args:
        last: refusals are retried as well: the lane of the dead letters has nowhere to put what it cannot deliver.
    """

    def __init__(
        self, name: str, sink: Sink, outcome: Outcome, *, required: bool, last: bool = False, clock: Clock = SYSTEM
    ) -> None:
        self.name = name
        self.required = required
        self.sink = sink
        self.stores = bool(getattr(sink, "stores", False))
        self._outcome = outcome
        self._last = last
        self._most = int(getattr(sink, "batch_max", BATCH_PARCELS)) if sink.batched else 1
        self._wait_s = float(getattr(sink, "batch_wait_s", 0.0))
        self._waiting: asyncio.Timeout | None = None
        self._hurried = False
        self._backoff = Backoff(clock=clock)
        self._queue: asyncio.Queue[Parcel] = asyncio.Queue(QUEUE_PARCELS)

    async def wait_idle(self) -> None:
        """Wait until everything that was put here is confirmed, refused or lost."""
        await self._queue.join()

    def hurry(self) -> None:
        """From now on nobody waits for a batch to become larger: no more is coming."""
        self._hurried = True
        if self._waiting is not None:
            self._waiting.reschedule(asyncio.get_running_loop().time())

    async def put(self, parcel: Parcel) -> None:
        """Queue a parcel. A full required lane makes its caller wait; a full optional one loses the parcel, counted."""
        if self.required:
            await self._queue.put(parcel)
            return
        try:
            self._queue.put_nowait(parcel)
        except asyncio.QueueFull:
            self._outcome.lost(parcel, "queue full")

    async def run(self) -> None:
        """Send for ever; cancel it to stop."""
        while True:
            parcels = [await self._queue.get()]
            await self._gather(parcels)
            await self._deliver(parcels)
            for _ in parcels:
                self._queue.task_done()

    async def _gather(self, parcels: list[Parcel]) -> None:
        """Add what is at hand, and what comes while the sink likes to wait."""
        while len(parcels) < self._most and not self._queue.empty():
            parcels.append(self._queue.get_nowait())
        if not self._wait_s or self._hurried or len(parcels) >= self._most:
            return
        try:
            async with asyncio.timeout(self._wait_s) as self._waiting:
                while len(parcels) < self._most:
                    parcels.append(await self._queue.get())
        except TimeoutError:
            return
        finally:
            self._waiting = None

    async def _deliver(self, parcels: Sequence[Parcel]) -> None:
        """Send until every parcel is confirmed, refused or, at an optional sink, given up."""
        tries = 0
        while True:
            try:
                await self.sink.send([parcel.delivery for parcel in parcels])
            except InvalidInput as error:
                if not self._last:
                    await self._refused(parcels, error)
                    return
                reason = error.message
            except InferloopError as error:
                reason = error.message
            except Exception as error:  # a pipeline outlives a defect of one sink
                log.exception("sink raised what it must not", extra={"sink": self.name})
                reason = f"{type(error).__name__}: {error}"
            else:
                self._arrived(parcels)
                return
            tries += 1
            if not self.required and (tries >= OPTIONAL_TRIES or self._backoff.open):
                self._backoff.failed()
                for parcel in parcels:
                    self._outcome.lost(parcel, reason)
                return
            await self._wait(reason, len(parcels))

    def _arrived(self, parcels: Sequence[Parcel]) -> None:
        if self._backoff.failures >= OPENS_AFTER:
            log.info("sink is back", extra={"sink": self.name, "after_failures": self._backoff.failures})
        self._backoff.succeeded()
        for parcel in parcels:
            self._outcome.confirmed(parcel)

    async def _refused(self, parcels: Sequence[Parcel], error: InvalidInput) -> None:
        """Find the guilty one of several by sending each alone."""
        if len(parcels) > 1:
            for parcel in parcels:
                await self._deliver([parcel])
        elif self.required:
            await self._outcome.refused(parcels[0], error.message)
        else:
            self._outcome.lost(parcels[0], error.message)

    async def _wait(self, reason: str, parcels: int) -> None:
        delay_s = self._backoff.failed()
        self._outcome.retried(self.name)
        if self._backoff.failures == 1 or self._backoff.failures % _LOG_EVERY == 0:
            facts = {"sink": self.name, "reason": reason, "failures": self._backoff.failures, "waiting": parcels}
            log.warning("sink is not there, trying again", extra=facts)
        await asyncio.sleep(delay_s)
