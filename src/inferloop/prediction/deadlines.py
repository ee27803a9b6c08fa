"""One timer for the deadlines of many jobs: most are answered long before theirs, and a timer each would cost more than that."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterable

from inferloop.prediction.jobs import Job

_RESOLUTION_S = 0.001


class Deadlines:
    """Answers jobs whose deadline has passed, within about a millisecond. Event loop only.

    Args:
        jobs: those that wait for an answer now; asked when the nearest deadline has come.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, jobs: Callable[[], Iterable[Job]]) -> None:
        self._loop = loop
        self._jobs = jobs
        self._at = math.inf
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, deadline: float) -> None:
        """See to a job with this deadline, `time.monotonic()` seconds."""
        if deadline < self._at:
            self.close()
            self._at = deadline
            self._timer = self._loop.call_later(max(0.0, deadline - time.monotonic()), self._ring)

    def close(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._at = None, math.inf

    def _ring(self) -> None:
        self._timer, self._at = None, math.inf
        now = time.monotonic()
        nearest = min((job.deadline for job in list(self._jobs()) if job.is_alive(now)), default=math.inf)
        if nearest < math.inf:
            self.watch(max(nearest, now + _RESOLUTION_S))
