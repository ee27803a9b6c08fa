"""A dry run: real messages and the real model, and nothing changes anywhere.

sources ──> the real pipeline, on a journal of its own ──> `show` instead of sinks
   ^── nothing is acknowledged: it all comes again
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from inferloop.core.protocols import Delivery, Sink, Source
from inferloop.core.sample import Message
from inferloop.data.journal import Journal, StoredDecision
from inferloop.streams.guarantee import make_source
from inferloop.streams.loading import DEAD_LETTER
from inferloop.streams.ownership import owned
from inferloop.streams.pipeline import Pipeline

if TYPE_CHECKING:
    import asyncio

    from inferloop.streams.contexts import SourceContext
    from inferloop.streams.events import Summary
    from inferloop.streams.loading import Part
    from inferloop.streams.scoring import Predicts

Show = Callable[[str, Delivery], None]
"""Told the sink and what it would get."""


async def rehearse(
    pipeline: Pipeline, *, router: Predicts, journal: Path, limit: int, show: Show, stop: asyncio.Event | None = None
) -> Summary:
    """Run until every source has given `limit` messages, has ended, or `stop` is set.

    It begins where `journal` says that the pipeline is; nothing is written there.

    Raises:
        Conflict: the pipeline is running on that journal; two would share its messages.
        InferloopError: as `Pipeline.run`.
    """
    spec = replace(pipeline.spec, outbox=None)
    parts = [*spec.sinks, *([spec.dead_letter] if spec.dead_letter else [])]
    sinks = {name: ShownSink(name, show) for name in {DEAD_LETTER, *(part.name for part in parts)}}
    with owned(journal, pipeline.name), tempfile.TemporaryDirectory(prefix="inferloop-dry-run-") as folder, ExitStack() as stack:
        real = _existing(journal)
        if real is not None:
            stack.enter_context(real)
        own = stack.enter_context(OverlaidJournal(Path(folder) / "journal.db", real))
        if state := real.state(pipeline.name) if real is not None else {}:
            own.save_state(pipeline.name, state)
        sources = {part.name: _leaving(part, limit) for part in spec.sources}
        return await Pipeline(spec).run(router=router, journal=own, stop=stop, sources=sources, sinks=sinks)


def _existing(path: Path) -> Journal | None:
    return Journal(path) if path.exists() else None


class OverlaidJournal(Journal):
    """Knows what another journal knows, and writes only to itself."""

    def __init__(self, path: Path, below: Journal | None) -> None:
        super().__init__(path)
        self._below = below

    def find(self, pipeline: str, message_ids: Iterable[str]) -> dict[str, StoredDecision]:
        """See `Journal.find`."""
        ids = list(message_ids)
        known = self._below.find(pipeline, ids) if self._below is not None else {}
        return {**known, **super().find(pipeline, ids)}

    def seen_once(self, pipeline: str, keys: Iterable[str]) -> set[str]:
        """See `Journal.seen_once`."""
        asked = list(keys)
        known = self._below.seen_once(pipeline, asked) if self._below is not None else set()
        return known | super().seen_once(pipeline, asked)


def _leaving(part: Part, limit: int) -> Callable[[SourceContext], Source]:
    return lambda context: LeavingSource(make_source(part, context), limit)


class LeavingSource(Source):
    """A source that leaves its messages where they are, and ends after so many."""

    def __init__(self, source: Source, limit: int) -> None:
        self.durable, self.replayable, self.ordered = source.durable, source.replayable, source.ordered
        self._source = source
        self._left = limit

    async def open(self) -> None:
        """See `Source.open`."""
        await self._source.open()

    async def read(self) -> Sequence[Message]:
        """See `Source.read`."""
        if not self._left:
            return ()
        messages = (await self._source.read())[: self._left]
        self._left -= len(messages)
        return messages

    async def ack(self, messages: Sequence[Message]) -> None:
        """Not told to anybody."""

    async def close(self) -> None:
        """See `Source.close`."""
        await self._source.close()


class ShownSink(Sink):
    """Shows what a sink would get."""

    idempotent = True
    batched = False

    def __init__(self, name: str, show: Show) -> None:
        self._name = name
        self._show = show

    async def open(self) -> None:
        """Nothing to open."""

    async def send(self, deliveries: Sequence[Delivery]) -> None:
        """Show them."""
        for delivery in deliveries:
            self._show(self._name, delivery)

    async def close(self) -> None:
        """Nothing to close."""
