"""One timer for the deadlines of all calls that wait; a call that is answered at once never meets it."""

from __future__ import annotations

import asyncio
import time
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Protocol

_SLACK = 1024


class Expiring(Protocol):
    """What has a deadline.

    Attributes:
        closed: it is over; the deadline no longer matters.
    """

    closed: bool

    def expire(self) -> None:
        """The deadline has passed."""
        ...


class Deadlines:
    """Calls by deadline. Entries of calls that are over go when they outnumber the others."""

    __slots__ = ("_at", "_heap", "_live", "_loop", "_order", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._heap: list[tuple[float, int, Expiring]] = []
        self._live = 0
        self._order = count()
        self._timer: asyncio.TimerHandle | None = None
        self._at = 0.0

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, call: Expiring, deadline: float) -> None:
        """Watch a call until `deadline`, `time.monotonic()` seconds."""
        heappush(self._heap, (deadline, next(self._order), call))
        self._live += 1
        if self._timer is None or deadline < self._at:
            self._arm()

    def remove(self) -> None:
        """One of the calls that were added is over; its `closed` says so."""
        self._live -= 1
        if len(self._heap) > 2 * self._live + _SLACK:
            self._heap = [entry for entry in self._heap if not entry[2].closed]
            heapify(self._heap)

    def close(self) -> None:
        """Watch no more."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        self._heap.clear()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._heap:
            self._at = self._heap[0][0]
            self._timer = self._loop.call_later(max(0.0, self._at - time.monotonic()), self._fire)

    def _fire(self) -> None:
        self._timer = None
        now = time.monotonic()
        while self._heap and (self._heap[0][0] <= now or self._heap[0][2].closed):
            call = heappop(self._heap)[2]
            if not call.closed:
                call.expire()
        self._arm()
