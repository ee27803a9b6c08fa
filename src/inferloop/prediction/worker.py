"""The thread of one session: batches go in through a queue, outcomes come back on the event loop."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from queue import SimpleQueue

from inferloop.core.protocols import Session
from inferloop.prediction.execution import Outcome, engine_errors, execute
from inferloop.prediction.jobs import Job
from inferloop.prediction.meter import Meter

Done = Callable[[Sequence[Job], list[Outcome], float], None]


class Worker:
    """Runs batches one after another in a thread of its own.

    Args:
        done: called on the loop with the jobs, their outcomes and the seconds that the run took.
        ended: called on the loop with this worker when its thread is over, for whatever reason.
        meter: counts the runs; None for nobody.
    """

    def __init__(
        self,
        session: Session,
        loop: asyncio.AbstractEventLoop,
        done: Done,
        *,
        ended: Callable[[Worker], None],
        meter: Meter | None = None,
    ) -> None:
        self._session = session
        self._meter = meter
        self._loop = loop
        self._done = done
        self._ended = ended
        self._inbox: SimpleQueue[Sequence[Job] | None] = SimpleQueue()
        self.thread = threading.Thread(target=self._main, name="inferloop-engine", daemon=True)
        self.thread.start()

    def put(self, jobs: Sequence[Job]) -> None:
        """Hand over a batch."""
        self._inbox.put(jobs)

    def stop(self) -> None:
        """Let the thread end after the batch it has."""
        self._inbox.put(None)

    def _main(self) -> None:
        try:
            while (jobs := self._inbox.get()) is not None:
                started = time.perf_counter()
                try:
                    outcomes = execute(self._session, jobs, self._meter)
                except BaseException as error:  # even SystemExit must not end the thread without an answer
                    outcomes = engine_errors(error, len(jobs))
                self._call(self._done, jobs, outcomes, time.perf_counter() - started)
        finally:
            self._call(self._ended, self)

    def _call(self, function: Callable[..., None], *arguments: object) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:  # the loop is closed: nobody waits any more
            self._inbox.put(None)
