"""A model that is far slower than the messages come: they wait at the broker, not in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from inferloop.streams.contexts import SinkContext
from inferloop.streams.events import EventKind
from inferloop.streams.sinks.memory import MemorySink
from support.pipelines import StopAfter, message, numbers_router, open_journal, pipeline
from support.stream_worlds.redis import Redis

MESSAGES, IN_FLIGHT, SLOW_S = 3000, 256, 0.1


class Slow:
    """A Router that takes its time."""

    def __init__(self, router: Any) -> None:
        self._router = router
        self.calls = 0

    async def predict_many(self, ref: str, samples: Sequence[Any], **known: Any) -> Any:
        self.calls += 1
        await asyncio.sleep(SLOW_S)
        return await self._router.predict_many(ref, samples, **known)

    def bundle(self, ref: str) -> Any:
        return self._router.bundle(ref)


async def test_behind_a_slow_model_messages_wait_at_the_broker_and_nothing_grows(tmp_path: Path) -> None:
    server = Redis(tmp_path / "redis")
    server.put([message(number) for number in range(MESSAGES)])
    unacknowledged: list[int] = []
    left_at_the_broker: list[int] = []
    stop = StopAfter(EventKind.ACKNOWLEDGED, MESSAGES)

    def look() -> None:
        with server.client() as client:
            unacknowledged.append(client.xpending("feed", "demo-feed")["pending"])
            (group,) = client.xinfo_groups("feed")
            left_at_the_broker.append(group["lag"])

    async def look_for_ever() -> None:
        while True:
            await asyncio.sleep(0.1)
            await asyncio.to_thread(look)

    act = MemorySink(SinkContext("demo", "act"))
    try:
        async with numbers_router(tmp_path) as router:
            slow = Slow(router)
            with open_journal(tmp_path) as journal:
                looking = asyncio.create_task(look_for_ever())
                running = pipeline(sources={"feed": server.source(in_flight=IN_FLIGHT)}).run(
                    router=slow, journal=journal, sinks={"act": act}, stop=stop.stop, on_event=stop
                )
                summary = await asyncio.wait_for(running, 120)
                looking.cancel()
                await asyncio.gather(looking, return_exceptions=True)
    finally:
        server.stop()
    assert slow.calls >= MESSAGES / 64, "the model was not asked slowly"
    assert summary.seconds >= MESSAGES / 64 * SLOW_S, "the model held up nothing"
    assert max(left_at_the_broker) > MESSAGES / 2, "the backlog was in this process"
    assert max(unacknowledged) <= IN_FLIGHT
    assert (summary.messages, summary.decisions, len(act.effects)) == (MESSAGES, MESSAGES, MESSAGES)
