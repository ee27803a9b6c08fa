"""Take a backlog from a broker, by our pipeline or by the bare loop of its client, and say how long it took.

`python benchmarks/streaming/drain.py ours|mqtt|nats|redis|kafka FOLDER URL COUNT` prints a line when it listens, and one JSON
object at the end: seconds from the first message read to the last one acknowledged, CPU seconds in between, the largest resident
size in MB, and for few messages the delay of each.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import uvloop
from bare import BARE
from watch import Watch

from inferloop.core.bundle import MODEL
from inferloop.core.collector import calm_collector
from inferloop.core.protocols import Source
from inferloop.core.sample import Message
from inferloop.data.journal import Journal
from inferloop.data.ledger.ledger import Ledger
from inferloop.prediction.router import Router
from inferloop.registry.registry import Registry
from inferloop.streams.contexts import SourceContext
from inferloop.streams.guarantee import make_source
from inferloop.streams.pipeline import Pipeline


class Watched(Source):
    """A source between two clocks."""

    def __init__(self, source: Source, watch: Watch, stop: asyncio.Event) -> None:
        self.durable, self.replayable, self.ordered = source.durable, source.replayable, source.ordered
        self._source, self._watch, self._stop = source, watch, stop

    async def open(self) -> None:
        """See `Source.open`."""
        await self._source.open()
        print(json.dumps({"open": True}), flush=True)

    async def read(self) -> Sequence[Message]:
        """See `Source.read`."""
        messages = await self._source.read()
        self._watch.begin()
        return messages

    async def ack(self, messages: Sequence[Message]) -> None:
        """See `Source.ack`."""
        await self._source.ack(messages)
        if self._watch.done([message.payload for message in messages]):
            self._stop.set()

    async def close(self) -> None:
        """See `Source.close`."""
        await self._source.close()


async def ours(folder: Path, count: int) -> None:
    """The pipeline file of the folder, with journal and ledger at their defaults."""
    pipeline = Pipeline.load(folder / "plant.yaml")
    stop, watch = asyncio.Event(), Watch(count)
    (part,) = pipeline.spec.sources
    source = Watched(make_source(part, SourceContext(pipeline.name, part.name)), watch, stop)
    with Registry() as registry, Journal(folder / "journal.db") as journal, Ledger(folder / "ledger.db") as ledger:
        async with Router(registry, ledger=ledger) as router:
            await router.open([pipeline.spec.model.ref])
            calm_collector()
            await pipeline.run(router=router, journal=journal, ledger=ledger, stop=stop, sources={part.name: source})


if __name__ == "__main__":
    who, where, address, number = sys.argv[1:]
    if who == "ours":
        uvloop.run(ours(Path(where), int(number)))
    else:
        uvloop.run(BARE[who](next(Path(where).glob(f"bundle/**/{MODEL}")), address, Watch(int(number))))
