"""A pipeline: loaded from its file, checked, tested and run."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from inferloop.core import plugins
from inferloop.core.clock import SYSTEM, Clock
from inferloop.core.errors import InferloopError
from inferloop.core.home import home
from inferloop.core.protocols import Sink, Source
from inferloop.data.journal import Journal
from inferloop.data.ledger.ledger import Ledger
from inferloop.streams.agreement import check_agreement
from inferloop.streams.compiling import rulebook_of
from inferloop.streams.contexts import SinkContext, SourceContext
from inferloop.streams.deciding import Decider
from inferloop.streams.delivery.outbox import Outbox
from inferloop.streams.events import Counters, Observer, Summary
from inferloop.streams.gathering import Gatherer, windows_of
from inferloop.streams.guarantee import Guarantees, guarantees, make_sink, make_source
from inferloop.streams.journaling import JournalThread
from inferloop.streams.loading import DEAD_LETTER, Part, PipelineSpec, build_spec, load_spec
from inferloop.streams.ownership import owned
from inferloop.streams.rules.memory import Memory
from inferloop.streams.runner import Parts, Runner
from inferloop.streams.scoring import Predicts, Scorer
from inferloop.streams.storing import ForwardingReport, behind, outbox_of
from inferloop.streams.testing import TestResult, check_tests, run_tests
from inferloop.streams.thinning import thinned

log = logging.getLogger(__name__)

DRAIN_S = 4.0
_POSITION = "source/"

GivenSource = Source | Callable[[SourceContext], Source]
"""A source, or what makes one that keeps its position with the pipeline."""


@dataclass(frozen=True, slots=True)
class Pipeline:
    """One checked pipeline file."""

    spec: PipelineSpec

    @property
    def name(self) -> str:
        """Its identity: part of every idempotency key."""
        return self.spec.name

    @classmethod
    def load(cls, path: Path | str, *, offline: bool = False) -> Pipeline:
        """Read and check a file.

        Args:
            path: the YAML file.
            offline: keep `${...}` references as they stand: enough to test, not to run.

        Raises:
            NotFound: there is no such file.
            InvalidConfig: all problems at once, each with its path.
        """
        return cls._checked(load_spec(path, offline=offline))

    @classmethod
    def of(cls, content: Mapping[str, Any], *, where: str = "pipeline") -> Pipeline:
        """The same from content instead of a file."""
        return cls._checked(build_spec(content, where))

    @classmethod
    def _checked(cls, spec: PipelineSpec) -> Pipeline:
        check_tests(spec)
        return cls(spec)

    def check(self) -> Guarantees:
        """What this file promises, for each source and sink."""
        return guarantees(self.spec)

    def test(self) -> list[TestResult]:
        """Run the tests of the file."""
        return run_tests(self.spec)

    async def run(
        self,
        *,
        router: Predicts,
        journal: Journal,
        ledger: Ledger | None = None,
        stop: asyncio.Event | None = None,
        on_event: Observer | None = None,
        drain_s: float = DRAIN_S,
        sources: Mapping[str, GivenSource] | None = None,
        sinks: Mapping[str, Sink] | None = None,
        clock: Clock = SYSTEM,
        counters: Counters | None = None,
        outbox: Outbox | None = None,
    ) -> Summary:
        """Run until the sources end or `stop` is set; then finish what was read, within `drain_s` seconds after a stop.

        Args:
            router: has the model of the pipeline open.
            journal: stays open; closed by the caller.
            ledger: gets a copy of every decision.
            stop: set it to end the run.
            on_event: told every step, on the event loop; must be quick and must not raise.
            sources: instead of those in the file, by name.
            sinks: the same for sinks, `dead_letter` included.
            clock: what time it is.
            counters: counts this run, for whoever wants to look on; made if it is not given.
            outbox: instead of that in the file, where the file declares one; opened and closed here.
            drain_s: what is not done by then stays unacknowledged and comes again.

        Raises:
            Conflict: another process runs this pipeline on this journal.
            InvalidConfig: file and model do not agree: a field or a label is missing.
            InferloopError: a source or required sink cannot be opened, or a source fails for good.
        """
        with owned(journal.path, self.name):
            return await self._run(
                router,
                journal,
                ledger,
                stop=stop,
                observer=on_event,
                drain_s=drain_s,
                sources=sources or {},
                sinks=sinks or {},
                clock=clock,
                counters=counters or Counters(self.name, clock=clock),
                outbox=outbox,
            )

    async def _run(
        self,
        router: Predicts,
        journal: Journal,
        ledger: Ledger | None,
        *,
        stop: asyncio.Event | None,
        observer: Observer | None,
        drain_s: float,
        sources: Mapping[str, GivenSource],
        sinks: Mapping[str, Sink],
        clock: Clock,
        counters: Counters,
        outbox: Outbox | None,
    ) -> Summary:
        check_agreement(self.spec, router.bundle(self.spec.model.ref))
        stopped = stop or asyncio.Event()
        thread = JournalThread(journal, self.name, clock=clock)
        try:
            async with contextlib.AsyncExitStack() as stack:
                parts = await self._parts(thread, router, ledger, observer, sources, sinks, clock, counters)
                parts = await self._with_outbox(stack, parts, counters, outbox)
                if await _open_all(stack, parts, stopped):
                    await Runner(self.spec, parts, counters).run(stopped, drain_s=drain_s)
            await _flush(thread, drain_s)
        finally:
            thread.close()
        return counters.summary()

    async def _parts(
        self,
        thread: JournalThread,
        router: Predicts,
        ledger: Ledger | None,
        observer: Observer | None,
        sources: Mapping[str, GivenSource],
        sinks: Mapping[str, Sink],
        clock: Clock,
        counters: Counters,
    ) -> Parts:
        state = await thread.call(lambda: thread.journal.state(self.name))
        positions: dict[str, bytes] = {}
        windows = windows_of(self.spec, router.bundle(self.spec.model.ref), state)
        return Parts(
            sources=[
                thinned(
                    _source(part, sources.get(part.name), self._context(part, state, positions)),
                    part.common,
                    partial(counters.drop, part.name),
                    clock,
                )
                for part in self.spec.sources
            ],
            sinks=self._sinks(thread, sinks),
            decider=Decider(self.name, rulebook_of(self.spec), thread.journal, memory=Memory(state), clock=clock.time),
            scorer=Scorer(router, self.spec.model, source=self.name, clock=clock),
            journal=thread,
            positions=positions,
            gatherer=None if windows is None else Gatherer(self.name, windows, thread, clock),
            ledger=ledger,
            observer=observer,
            clock=clock,
        )

    async def _with_outbox(
        self, stack: contextlib.AsyncExitStack, parts: Parts, counters: Counters, given: Outbox | None
    ) -> Parts:
        section = self.spec.outbox
        if section is None:
            return parts
        outbox = given or outbox_of(section, self.name, parts.clock)
        stack.push_async_callback(outbox.close)
        await outbox.open()
        report = ForwardingReport(self.name, counters, parts.observer, clock=parts.clock)
        return replace(parts, sinks=behind(outbox, section, parts.sinks, report, parts.clock))

    def _context(self, part: Part, state: Mapping[str, bytes], positions: dict[str, bytes]) -> SourceContext:
        name = f"{_POSITION}{part.name}"

        def remember(position: str) -> None:
            positions[name] = position.encode()

        return SourceContext(self.name, part.name, state.get(name, b"").decode(), remember)

    def _sinks(self, thread: JournalThread, given: Mapping[str, Sink]) -> dict[str, tuple[Sink, bool]]:
        made: dict[str, tuple[Sink, bool]] = {}
        for part in (*self.spec.sinks, self.spec.dead_letter or self._default_dead_letter()):
            context = SinkContext(self.name, part.name, thread.journal, thread.executor)
            sink = given.get(part.name) or make_sink(part, context)
            made[part.name] = (sink, part.name == DEAD_LETTER or part.common.required)
        return made

    def _default_dead_letter(self) -> Part:
        path = home() / "dead-letters" / f"{self.name}.jsonl"
        return Part(DEAD_LETTER, "file", plugins.load("sinks", "file").Config(path=path))


def _source(part: Part, given: GivenSource | None, context: SourceContext) -> Source:
    if given is None:
        return make_source(part, context)
    return given(context) if callable(given) else given


async def _flush(thread: JournalThread, limit_s: float) -> None:
    """Note the last deliveries; where the disk takes nothing, the end must not wait for it."""
    try:
        async with asyncio.timeout(limit_s):
            await thread.call(thread.journal.flush)
    except TimeoutError:
        log.warning("last deliveries not noted, they are sent again with the same keys")


async def _open_all(stack: contextlib.AsyncExitStack, parts: Parts, stop: asyncio.Event) -> bool:
    """Open sinks, then sources, to be closed in the reverse order; false if it was stopped before all were open."""
    for name, (sink, required) in parts.sinks.items():
        stack.push_async_callback(sink.close)
        try:
            if not await _unless_stopped(sink.open(), stop):
                return False
        except InferloopError as error:
            if required:
                raise
            log.warning("optional sink is not there", extra={"sink": name, "reason": error.message})
    for source in parts.sources:
        stack.push_async_callback(source.close)
    return all(await asyncio.gather(*(_unless_stopped(source.open(), stop) for source in parts.sources)))


async def _unless_stopped(work: Awaitable[None], stop: asyncio.Event) -> bool:
    """Await something, or give it up when `stop` is set; returns whether it was done."""
    task = asyncio.ensure_future(work)
    waiting = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
            return True
        return False
    finally:
        for each in (task, waiting):
            if not each.done():
                each.cancel()
        await asyncio.gather(task, waiting, return_exceptions=True)
