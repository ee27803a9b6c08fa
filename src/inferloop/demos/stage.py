"""Everything that runs while a demo runs: registry, ledger, journal, REST server and pipeline, on one event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from inferloop.client.client import Client, Truth
from inferloop.core.errors import Cancelled, DeadlineExceeded
from inferloop.data.journal import Journal, journal_path
from inferloop.data.ledger.ledger import Ledger, ledger_path
from inferloop.demos.tally import Decided, Tally
from inferloop.registry.registry import Registry
from inferloop.serving.server import Served, ServeSettings, serve
from inferloop.streams.pipeline import Pipeline

_FEEDBACK_ROWS = 200
_POLL_S = 0.05


class Stage:
    """`async with Stage(registry, tally, ref=..., pipeline=path) as stage: stage.url`.

    The server and the pipeline share one Router, so that both follow the alias together.
    """

    def __init__(self, registry: Registry, tally: Tally, *, ref: str, pipeline: Path) -> None:
        self.tally = tally
        self._registry = registry
        self._ref = ref
        self._path = pipeline
        self._stop_pipeline, self._stop_server = asyncio.Event(), asyncio.Event()
        self._ready: asyncio.Future[Served] = asyncio.get_running_loop().create_future()
        self._opened = AsyncExitStack()
        self._tasks: list[asyncio.Future[Any]] = []

    async def __aenter__(self) -> Self:
        """Open everything; returns when the server answers and the pipeline reads."""
        async with AsyncExitStack() as stack:
            self.ledger = stack.enter_context(Ledger(ledger_path()))
            self.journal = stack.enter_context(Journal(journal_path()))
            stack.push_async_callback(self._end)
            await self._start()
            self._opened = stack.pop_all()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Drain the pipeline and the server, then close the files."""
        await self._opened.aclose()

    @property
    def url(self) -> str:
        """Where the server listens."""
        return self._ready.result().url

    async def settle(self, messages: int, *, limit_s: float = 120.0) -> None:
        """Wait until so many messages are decided or dead letters.

        Raises:
            DeadlineExceeded: they are not, within `limit_s`.
            InferloopError: the server or the pipeline ended meanwhile.
        """
        deadline = asyncio.get_running_loop().time() + limit_s
        while self.tally.settled < messages or self.tally.acknowledged < messages:
            self.check()
            if asyncio.get_running_loop().time() > deadline:
                raise DeadlineExceeded(f"{self.tally.settled} of {messages} messages are settled after {limit_s:.0f} s")
            await asyncio.sleep(_POLL_S)

    async def feed_back(self, decided: Sequence[Decided]) -> int:
        """Send the truth of these messages to the server, as reviewers would; returns how many it stored.

        Raises:
            InferloopError: the server refused, or is not there.
        """
        truths = [Truth(each.prediction_id, each.truth, by="reviewer") for each in decided]
        stored = 0
        async with Client(self.url) as client:
            for start in range(0, len(truths), _FEEDBACK_ROWS):
                stored += (await client.feedback(truths[start : start + _FEEDBACK_ROWS])).count
        return stored

    async def until_serving(self, version: int, *, limit_s: float = 60.0) -> None:
        """Wait until server and stream have taken this version over.

        Raises:
            DeadlineExceeded: they have not, within `limit_s`.
        """
        deadline = asyncio.get_running_loop().time() + limit_s
        router = self._ready.result().router
        while router.bundle(self._ref).version != version:
            self.check()
            if asyncio.get_running_loop().time() > deadline:
                raise DeadlineExceeded(f"version {version} does not answer after {limit_s:.0f} s")
            await asyncio.sleep(_POLL_S)

    async def alongside(self, work: Awaitable[None]) -> None:
        """Await something while server and pipeline run; raises what ended them, if they end first."""
        task = asyncio.ensure_future(work)
        try:
            await asyncio.wait({task, *self._tasks}, return_when=asyncio.FIRST_COMPLETED)
            self.check()
            await task
        finally:
            task.cancel()

    async def forever(self) -> None:
        """Wait until the server or the pipeline ends (a signal, an error)."""
        await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        self.check()

    async def _start(self) -> None:
        server = serve(
            [self._ref],
            registry=self._registry,
            ledger=self.ledger,
            settings=ServeSettings(port=0),
            on_ready=self._ready.set_result,
            stop=self._stop_server,
        )
        self._tasks.append(asyncio.create_task(server))
        await asyncio.wait({self._ready, *self._tasks}, return_when=asyncio.FIRST_COMPLETED)
        self.check()
        pipeline = Pipeline.load(self._path)
        router = self._ready.result().router
        running = pipeline.run(
            router=router, journal=self.journal, ledger=self.ledger, stop=self._stop_pipeline, on_event=self.tally.observe
        )
        self._tasks.append(asyncio.create_task(running))

    def check(self) -> None:
        """Raise what ended a task; an end without an error means that a signal came."""
        for task in self._tasks:
            if task.done():
                task.result()
                raise Cancelled("the demo was stopped", hint="run it again")

    async def _end(self) -> None:
        """The pipeline first: what it has read is still decided by the server's Router."""
        self._stop_pipeline.set()
        await asyncio.gather(*self._tasks[1:], return_exceptions=True)
        self._stop_server.set()
        await asyncio.gather(*self._tasks[:1], return_exceptions=True)
