"""What a live source may leave out: how much, which, and that it is counted."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferloop.core.clock import Clock
from inferloop.core.protocols import Source
from inferloop.core.sample import Message
from inferloop.data.units import RateLimit
from inferloop.streams.config import SourceCommon
from inferloop.streams.thinning import ThinnedSource, thinned
from support.pipelines import pipeline


class Pushing(Source):
    """Gives what the test puts, and notes what is acknowledged."""

    durable, replayable, ordered = False, False, True

    def __init__(self) -> None:
        self.queue: asyncio.Queue[list[Message]] = asyncio.Queue()
        self.acknowledged: list[int] = []

    async def open(self) -> None:
        pass

    async def read(self) -> Sequence[Message]:
        return await self.queue.get()

    async def ack(self, messages: Sequence[Message]) -> None:
        self.acknowledged += [int(message.payload) for message in messages]

    async def close(self) -> None:
        pass

    def put(self, *numbers: int) -> None:
        self.queue.put_nowait([Message(str(number).encode(), "cam", 0.0) for number in numbers])


def source(pushing: Pushing, dropped: list[str], clock: Clock | None = None, **common: Any) -> ThinnedSource:
    def note(reason: str, count: int) -> None:
        dropped.extend([reason] * count)

    made = thinned(pushing, SourceCommon(**common), note, clock or Clock(monotonic=lambda: 0.0))
    assert isinstance(made, ThinnedSource)
    return made


def numbers(messages: Sequence[Message]) -> list[int]:
    return [int(message.payload) for message in messages]


async def settle() -> None:
    for _ in range(50):
        await asyncio.sleep(0)


async def all_of(live: ThinnedSource, pushing: Pushing) -> list[int]:
    """What it gives until its source ends."""
    pushing.queue.put_nowait([])
    given: list[int] = []
    while messages := await live.read():
        given += numbers(messages)
    return given


def test_a_source_that_says_nothing_is_left_alone() -> None:
    pushing = Pushing()
    assert thinned(pushing, SourceCommon(), lambda *_: None) is pushing


async def test_the_oldest_go_when_too_many_wait_and_are_acknowledged_at_once() -> None:
    pushing, dropped = Pushing(), []
    live = source(pushing, dropped, buffer=3, when_full="drop_oldest")
    await live.open()
    pushing.put(*range(10))
    await settle()
    assert await all_of(live, pushing) == [7, 8, 9]
    assert (dropped, pushing.acknowledged) == (["full"] * 7, list(range(7)))
    await live.close()


async def test_a_full_buffer_holds_up_the_source_unless_it_may_drop() -> None:
    pushing, dropped = Pushing(), []
    live = source(pushing, dropped, buffer=2)
    await live.open()
    pushing.put(0, 1, 2)
    pushing.put(3)
    await settle()
    assert pushing.queue.qsize() == 1, "it read on though nobody took anything"
    assert await all_of(live, pushing) == [0, 1, 2, 3]
    assert not dropped
    await live.close()


@given(gaps=st.lists(st.floats(0, 1), min_size=1, max_size=60), count=st.integers(1, 20), per_s=st.floats(0.1, 10))
def test_no_span_of_time_has_more_messages_than_its_rate_allows(gaps: list[float], count: int, per_s: float) -> None:
    async def passed() -> list[float]:
        now = 0.0
        pushing, dropped = Pushing(), []
        limit = RateLimit(count, per_s)
        live = ThinnedSource(
            pushing, SourceCommon(rate=limit), lambda reason, _: dropped.append(reason), Clock(monotonic=lambda: now)
        )
        await live.open()
        times: list[float] = []
        for number, gap in enumerate(gaps):
            now += gap
            times.append(now)
            pushing.put(number)
            await settle()
        came = await all_of(live, pushing)
        await live.close()
        assert len(came) + len(dropped) == len(gaps)
        assert came[0] == 0, "the first may always pass"
        return [times[number] for number in came]

    came = asyncio.run(passed())
    gap = per_s / count
    for first in range(len(came)):
        for last in range(first, len(came)):
            # evenly spaced, but for one that comes a little late and does not delay those after it
            assert last - first <= (came[last] - came[first]) / gap + 1 + 1e-6


async def test_a_source_that_fails_says_so_to_whoever_reads() -> None:
    class Broken(Pushing):
        async def read(self) -> Sequence[Message]:
            raise OSError("unplugged")

    live = source(Broken(), [], buffer=2)
    await live.open()
    with pytest.raises(OSError, match="unplugged"):
        await live.read()
    await live.close()


async def test_a_cancelled_read_loses_nothing() -> None:
    pushing = Pushing()
    live = source(pushing, [], buffer=2)
    await live.open()
    reading = asyncio.create_task(live.read())
    await settle()
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    pushing.put(1)
    assert numbers(await live.read()) == [1]
    await live.close()
    await live.close()


def test_the_guarantee_says_what_is_left_out() -> None:
    live = {"websocket": {"url": "ws://127.0.0.1:1/"}, "rate": "5/s", "when_full": "drop_oldest"}
    notes = pipeline(sources={"cam": live}).check().notes
    assert "source cam: leaves out what is beyond 5 in 1 s" in notes
    assert "source cam: leaves out the oldest when more than 256 wait" in notes
