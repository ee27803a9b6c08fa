"""An event loop on which waiting costs nothing: when nobody can go on, the clock moves to whoever is next.

Nothing runs beside it: executors run their work on the loop, one piece after the other, and take simulated time for it. So
the same seed gives the same run, event by event.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable
from concurrent.futures import Executor
from random import Random
from typing import Any

_WORK_S = 0.001
"""Mean time of one piece of work of an executor."""


class Stuck(Exception):  # a finding of the simulation, no error of a user
    """Nothing is left that could ever happen, and somebody still waits."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """Its `time` begins at 0.

    Args:
        random: how long the work of executors takes.
    """

    def __init__(self, random: Random) -> None:
        self.now = 0.0
        self._random = random
        self._free_at: dict[Executor, float] = {}
        super().__init__(_Nothing(self))

    def time(self) -> float:
        """See `AbstractEventLoop.time`."""
        return self.now

    def run_in_executor(  # type: ignore[override]  # its type variables say no more here
        self, executor: Executor | None, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """Do the work when the executor has done what came before; all executors have one thread, the default one many."""
        future = self.create_future()
        start = self.now if executor is None else max(self.now, self._free_at.get(executor, 0.0))
        end = start + self._random.expovariate(1 / _WORK_S)
        if executor is not None:
            self._free_at[executor] = end
        self.call_at(start, self._work, future, func, args, end)
        return future

    def _work(self, future: asyncio.Future[Any], func: Callable[..., Any], args: tuple[Any, ...], end: float) -> None:
        if future.cancelled():
            return
        try:
            result = func(*args)
        except Exception as error:  # the caller's, as in a thread
            self.call_at(end, _fail, future, error)
        else:
            self.call_at(end, _settle, future, result)


class _Nothing(selectors.SelectSelector):
    """No socket ever speaks; waiting moves the clock."""

    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise Stuck("nothing can happen any more")
        self._loop.now += max(0.0, timeout)
        return []


def _settle(future: asyncio.Future[Any], result: Any) -> None:
    if not future.cancelled():
        future.set_result(result)


def _fail(future: asyncio.Future[Any], error: Exception) -> None:
    if not future.cancelled():
        future.set_exception(error)
