"""Store and forward: a sink behind an outbox. What is on disk counts as confirmed, and is forwarded later."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, TypeVar

from inferloop.core.clock import SYSTEM, Clock
from inferloop.core.errors import InferloopError, InvalidInput
from inferloop.core.protocols import Delivery, Sink
from inferloop.streams.delivery.backoff import Backoff
from inferloop.streams.delivery.outbox import Outbox, StoredParcel

T = TypeVar("T")

log = logging.getLogger(__name__)

_PAGE = 256
_LOG_EVERY = 10
_LOOKS = 10
"""How often a sink that waits for larger batches looks whether one is there."""


class Forwarded(Protocol):
    """Who hears what became of stored deliveries. Called on the event loop."""

    def forwarded(self, sink: str, delivery: Delivery) -> None:
        """The sink has it."""

    def retried(self, sink: str) -> None:
        """It is tried again."""

    def dropped(self, sink: str, count: int) -> None:
        """The outbox was full, and these made room."""

    def refused(self, sink: str, delivery: Delivery, reason: str) -> Awaitable[None]:
        """The sink refused it for good, or it became too old; returns once it is a dead letter."""


class ForwardingSink(Sink):
    """Puts deliveries into the outbox; a task of its own opens the real sink, sends them in order and tries again for ever.

    Args:
        max_age_s: what waited longer is not sent any more, it becomes a dead letter.
    """

    idempotent = True
    batched = True
    stores = True

    def __init__(
        self, name: str, sink: Sink, outbox: Outbox, told: Forwarded, *, max_age_s: float | None = None, clock: Clock = SYSTEM
    ) -> None:
        self._name = name
        self._sink = sink
        self._outbox = outbox
        self._told = told
        self._max_age_s = max_age_s
        self._clock = clock
        self._backoff = Backoff(clock=clock)
        self._news = asyncio.Event()
        self._empty = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def keeps_input(self) -> bool:
        """As the real sink has it."""
        return bool(getattr(self._sink, "keeps_input", False))

    async def open(self) -> None:
        """See `Sink.open`; does not wait for the other side."""
        self._task = asyncio.create_task(self._forward_for_ever(), name=f"forward-{self._name}")

    async def send(self, deliveries: Sequence[Delivery]) -> None:
        """See `Sink.send`; confirmed means on disk."""
        self._empty.clear()
        try:
            dropped = await self._outbox.put(self._name, deliveries)
        finally:  # also where the disk says that it did not write: what is there makes room only when it is forwarded
            self._news.set()
        for sink, count in dropped.items():
            self._told.dropped(sink, count)

    async def drained(self) -> None:
        """Wait until everything that was put here is forwarded."""
        await self._empty.wait()

    async def close(self) -> None:
        """See `Sink.close`; what is not forwarded stays in the outbox."""
        task, self._task = self._task, None
        if task is not None:
            while not task.done():  # a client may swallow the first cancellation while it connects
                task.cancel()
                await asyncio.wait([task], timeout=1.0)
        await self._sink.close()

    async def _forward_for_ever(self) -> None:
        await self._insisted(self._sink.open)
        most = int(getattr(self._sink, "batch_max", _PAGE)) if self._sink.batched else 16
        while True:
            self._news.clear()
            page = await self._insisted(lambda: self._outbox.page(self._name, most))
            if page:
                page = await self._gathered(page, most)
                await self._forward(page)
            elif not self._news.is_set():
                self._empty.set()
                await self._news.wait()

    async def _gathered(self, page: list[StoredParcel], most: int) -> list[StoredParcel]:
        """As much as comes while the sink likes to wait."""
        wait_s = float(getattr(self._sink, "batch_wait_s", 0.0))
        for _ in range(_LOOKS if wait_s else 0):
            if len(page) >= most:
                break
            await asyncio.sleep(wait_s / _LOOKS)
            page = await self._insisted(lambda: self._outbox.page(self._name, most))
        return page

    async def _forward(self, page: Sequence[StoredParcel]) -> None:
        now, limit_s = self._clock.time(), self._max_age_s
        old = [parcel for parcel in page if limit_s is not None and now - parcel.stored > limit_s]
        for parcel in old:
            await self._told.refused(self._name, parcel.delivery, f"waited in the outbox for more than {limit_s:g} s")
        fresh = [parcel for parcel in page if parcel not in old] if old else page
        for group in [fresh] if self._sink.batched else [[parcel] for parcel in fresh]:
            if group:
                await self._send(group)
        await self._insisted(lambda: self._outbox.remove(page))

    async def _send(self, group: Sequence[StoredParcel]) -> None:
        """Send until every delivery is confirmed or refused."""
        while True:
            try:
                await self._sink.send([parcel.delivery for parcel in group])
            except InvalidInput as error:
                if len(group) > 1:
                    for parcel in group:
                        await self._send([parcel])
                else:
                    await self._told.refused(self._name, group[0].delivery, error.message)
                return
            except InferloopError as error:
                await self._wait(error.message, len(group))
            except Exception as error:  # a pipeline outlives a defect of one sink
                log.exception("sink raised what it must not", extra={"sink": self._name})
                await self._wait(f"{type(error).__name__}: {error}", len(group))
            else:
                self._backoff.succeeded()
                for parcel in group:
                    self._told.forwarded(self._name, parcel.delivery)
                return

    async def _insisted(self, work: Callable[[], Awaitable[T]]) -> T:
        """Try until it is done; the disk or the other side may be away."""
        while True:
            try:
                return await work()
            except InferloopError as error:
                await self._wait(error.message, 0)

    async def _wait(self, reason: str, parcels: int) -> None:
        delay_s = self._backoff.failed()
        self._told.retried(self._name)
        if self._backoff.failures == 1 or self._backoff.failures % _LOG_EVERY == 0:
            facts = {"sink": self._name, "reason": reason, "failures": self._backoff.failures, "waiting": parcels}
            log.warning("sink is not there, the outbox keeps its deliveries", extra=facts)
        await asyncio.sleep(delay_s)
