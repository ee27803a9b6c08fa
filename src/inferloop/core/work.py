"""What is begun with a callback, or awaited: an answer on its way, without the cost of a Task.

    work.start(done)        done(value, None) or done(None, error), exactly once, perhaps before `start` returns
    value = await work      the same for a coroutine

Most requests wait for one thing, their batch. A Task would cost two turns of the loop and about 0.7 us for each; coroutines on
top of each other cost as much again. What a driven coroutine does not have: `asyncio.current_task()`, and with it
`asyncio.timeout`, inside; whoever needs those awaits a Task.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Generic, TypeVar

T = TypeVar("T")

Done = Callable[[T | None, BaseException | None], None]
"""Takes the value, or the error."""


class Work(ABC, Generic[T]):
    """An answer on its way. One event loop; started or awaited once."""

    __slots__ = ()

    @abstractmethod
    def start(self, done: Done[T]) -> None:
        """Begin; `done` is called exactly once, also after `cancel`."""

    @abstractmethod
    def cancel(self) -> None:
        """Nobody waits any more: `done` hears `CancelledError` unless it has heard something else."""

    def __await__(self) -> Generator[Any, None, T]:
        """Start, and wait; cancelling who waits cancels the work."""
        future = _Awaited(self)
        self.start(future.settle)
        return future.__await__()


class _Awaited(asyncio.Future[Any]):
    """The future of one who awaits a Work."""

    def __init__(self, work: Work[Any]) -> None:
        super().__init__()
        self._work: Work[Any] | None = work

    def settle(self, value: Any, error: BaseException | None) -> None:
        """Hear how it ended."""
        self._work = None  # it knows us: no circle for the garbage collector
        if self.done():
            return
        if error is None:
            self.set_result(value)
        elif isinstance(error, asyncio.CancelledError):
            super().cancel()
        else:
            self.set_exception(error)

    def cancel(self, msg: Any = None) -> bool:
        """Leave the work, too."""
        if self._work is not None:
            self._work.cancel()
        return super().cancel(msg) or self.cancelled()


class Drive(Work[T]):
    """Runs a coroutine: it starts at once, and goes on when the future that it awaits is done."""

    __slots__ = ("_cancelled", "_coroutine", "_done", "_waiting")

    _done: Done[T]

    def __init__(self, coroutine: Coroutine[Any, Any, T]) -> None:
        self._coroutine = coroutine
        self._waiting: asyncio.Future[Any] | None = None
        self._cancelled = False

    def start(self, done: Done[T]) -> None:
        """Run until the first wait."""
        self._done = done
        self._advance(None)

    def cancel(self) -> None:
        """Raise `CancelledError` where the coroutine waits, as `Task.cancel`."""
        self._cancelled = True
        if self._waiting is not None:
            self._waiting.cancel()

    def _advance(self, _: asyncio.Future[Any] | None) -> None:
        self._waiting = None
        try:
            yielded = self._step()
        except StopIteration as stop:
            self._done(stop.value, None)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # handed on, CancelledError included
            self._done(None, error)
        else:
            self._wait(yielded)

    def _step(self) -> Any:
        if self._cancelled:
            self._cancelled = False
            return self._coroutine.throw(asyncio.CancelledError())
        return self._coroutine.send(None)

    def _wait(self, yielded: Any) -> None:
        if yielded is None:  # a bare yield, `asyncio.sleep(0)`
            asyncio.get_running_loop().call_soon(self._advance, None)
            return
        yielded._asyncio_future_blocking = False  # noqa: SLF001 - the protocol between a future and who drives it
        self._waiting = yielded
        yielded.add_done_callback(self._advance)
        if self._cancelled:  # while it ran
            yielded.cancel()


class Settled(Work[T]):
    """A value that is there already."""

    __slots__ = ("_value",)

    def __init__(self, value: T) -> None:
        self._value = value

    def start(self, done: Done[T]) -> None:
        """Hand it over."""
        done(self._value, None)

    def cancel(self) -> None:
        """Too late."""
