"""Several answers to one request: made in a thread, taken on the event loop, no more ahead than a few.

astream ── waits its turn ── thread: session.stream ── answer, answer, … ── bounded pipe ── event loop ── caller
                                      waits when the pipe is full, ends when the caller has left
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue

from inferloop.core.datatypes import Array, Tensors
from inferloop.core.errors import DeadlineExceeded, InferloopError, Overloaded, Unavailable
from inferloop.core.protocols import Session, StreamingSession
from inferloop.prediction.execution import engine_error
from inferloop.prediction.meter import Meter
from inferloop.prediction.public import split_axis, streams

AHEAD = 8
"""Answers of one request that may wait for their caller; the model waits with the next one."""


class SplitSession(StreamingSession):
    """Answers with the slices of a model's outputs along their first axis beside the batch axis, one after another."""

    def __init__(self, session: Session) -> None:
        self.signature = session.signature
        self._session = session
        self._axis = split_axis(session.signature)

    def run(self, inputs: Tensors) -> dict[str, Array]:
        """See `Session.run`."""
        return self._session.run(inputs)

    def stream(self, inputs: Tensors) -> Iterator[dict[str, Array]]:
        """See `StreamingSession.stream`; outputs of different lengths give as many answers as the shortest has."""
        outputs = self._session.run(inputs)
        count = min(array.shape[self._axis] for array in outputs.values())
        for place in range(count):
            yield {name: _slice(array, place, self._axis) for name, array in outputs.items()}

    def close(self) -> None:
        """See `Session.close`."""
        self._session.close()


def _slice(array: Array, place: int, axis: int) -> Array:
    """One slice, as a view."""
    view: Array = array[place] if axis == 0 else array[:, place]
    return view


def as_streaming(session: Session) -> StreamingSession:
    """The session itself if it can stream, else its outputs in slices."""
    return session if streams(session) else SplitSession(session)  # type: ignore[return-value]  # asked by its method


class Pipe:
    """The answers of one request between the thread that makes them and the event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._items: deque[Tensors | InferloopError | None] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._room = threading.Semaphore(AHEAD)
        self.left = False

    def put(self, item: Tensors | InferloopError | None) -> bool:
        """From the thread: hand over an answer, the error that ends them, or None at the end; waits for room.

        Returns:
            Whether the caller wants more.
        """
        if isinstance(item, dict):
            self._room.acquire()
        if not self.left:
            try:
                self._loop.call_soon_threadsafe(self._arrive, item)
            except RuntimeError:  # the loop is closed: nobody waits any more
                self.left = True
        return not self.left

    async def get(self) -> Tensors | None:
        """On the event loop: the next answer, None at the end.

        Raises:
            InferloopError: what ended them.
        """
        if not self._items:
            self._waiter = self._loop.create_future()
            await self._waiter
        item = self._items.popleft()
        if isinstance(item, InferloopError):
            raise item
        self._room.release()
        return item

    def fail(self, error: InferloopError) -> None:
        """On the event loop: the next `get` raises it; the thread ends at its next answer."""
        self._items.clear()
        self._arrive(error)
        self.leave()

    def leave(self) -> None:
        """On the event loop: the caller wants no more; the thread ends at its next answer."""
        self.left = True
        self._room.release()

    def _arrive(self, item: Tensors | InferloopError | None) -> None:
        self._items.append(item)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Streamer:
    """Runs the requests of a decoupled model, as many at once as there are sessions. Event loop only.

    Args:
        max_waiting: requests that may wait for a session; above it `Overloaded`.
    """

    def __init__(self, sessions: Sequence[Session], *, max_waiting: int, meter: Meter) -> None:
        self._sessions: SimpleQueue[StreamingSession] = SimpleQueue()
        for session in sessions:
            self._sessions.put(as_streaming(session))
        self._count = len(sessions)
        self._pool: ThreadPoolExecutor | None = ThreadPoolExecutor(self._count, thread_name_prefix="inferloop-stream")
        self._max_waiting = max_waiting
        self._meter = meter
        self._open: set[Pipe] = set()
        self._quiet = asyncio.Event()
        self._quiet.set()

    async def stream(self, inputs: Tensors, rows: int, *, deadline: float | None = None) -> AsyncGenerator[Tensors, None]:
        """The answers to checked inputs, as they are made.

        Raises:
            Overloaded: too many requests wait.
            EngineError, DeadlineExceeded, Unavailable: instead of the next answer.
        """
        loop = asyncio.get_running_loop()
        if self._pool is None:
            raise Unavailable("the model is being unloaded", hint="try again")
        if deadline is not None and deadline <= time.monotonic():
            raise DeadlineExceeded("the deadline was over on arrival")
        if len(self._open) >= self._max_waiting + self._count:
            raise Overloaded(f"{len(self._open)} requests are being answered or wait, the limit is {self._max_waiting}")
        pipe = Pipe(loop)
        timer = None if deadline is None else loop.call_later(deadline - time.monotonic(), pipe.fail, _late())
        self._open.add(pipe)
        self._quiet.clear()
        try:
            self._pool.submit(self._produce, inputs, rows, pipe, time.perf_counter())
            while (outputs := await pipe.get()) is not None:
                yield outputs
        finally:
            pipe.leave()
            if timer is not None:
                timer.cancel()
            self._open.discard(pipe)
            if not self._open:
                self._quiet.set()

    async def aclose(self, *, grace_s: float) -> bool:
        """Take nothing more, finish what was accepted, end what is left after `grace_s`; whether the sessions are free."""
        pool, self._pool = self._pool, None
        if pool is None:
            return True
        try:
            async with asyncio.timeout(grace_s):
                await self._quiet.wait()
        except TimeoutError:
            for pipe in self._open:
                pipe.fail(Unavailable("the model was unloaded before the last answer", hint="try again"))
        pool.shutdown(wait=False)
        return self._sessions.qsize() == self._count

    def abandon(self) -> None:
        """Let the threads end: the event loop is gone."""
        pool, self._pool = self._pool, None
        for pipe in self._open:
            pipe.leave()
        if pool is not None:
            pool.shutdown(wait=False, cancel_futures=True)

    def _produce(self, inputs: Tensors, rows: int, pipe: Pipe, asked: float) -> None:
        """In a thread: run one request."""
        if pipe.left:
            return
        session = self._sessions.get()
        started = time.perf_counter()
        self._meter.waited((started - asked,))
        try:
            self._answer(session.stream(inputs), pipe)
            self._meter.ran(time.perf_counter() - started, rows=rows)
            end: InferloopError | None = None
        except BaseException as error:  # whatever an engine raises, the request gets an end
            self._meter.engine_failed()
            end = engine_error(error)
        finally:
            self._sessions.put(session)
        pipe.put(end)

    def _answer(self, answers: Iterator[Tensors], pipe: Pipe) -> None:
        try:
            for outputs in answers:
                if not pipe.put(outputs):
                    return
        finally:
            close = getattr(answers, "close", None)
            if close is not None:
                close()


def _late() -> DeadlineExceeded:
    return DeadlineExceeded("the deadline passed before the last answer", hint="allow more time or ask for less")
