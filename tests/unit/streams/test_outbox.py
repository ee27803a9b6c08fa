"""Store and forward: what the outbox took is on disk, in order, bounded, and is forwarded when the other side is there."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferloop.core.errors import InvalidInput, StorageError, Unavailable
from inferloop.core.protocols import Delivery
from inferloop.streams.contexts import SinkContext
from inferloop.streams.delivery.forwarding import ForwardingSink
from inferloop.streams.delivery.outbox import Outbox
from inferloop.streams.sinks.memory import MemorySink

LARGE = 10**9
T = TypeVar("T")


class Told:
    """Keeps `Forwarded`."""

    def __init__(self) -> None:
        self.arrived: list[str] = []
        self.refusals: list[tuple[str, str]] = []
        self.losses: Counter[str] = Counter()
        self.tries = 0

    def forwarded(self, sink: str, delivery: Delivery) -> None:
        self.arrived.append(delivery.key)

    def retried(self, sink: str) -> None:
        self.tries += 1

    def dropped(self, sink: str, count: int) -> None:
        self.losses[sink] += count

    async def refused(self, sink: str, delivery: Delivery, reason: str) -> None:
        self.refusals.append((delivery.key, reason))


def delivery(number: int) -> Delivery:
    return Delivery(f"k{number}", {"number": number, "text": "ä" * 20}, f"m{number}")


@asynccontextmanager
async def opened(path: Path, *, max_bytes: int = LARGE, drop_oldest: bool = False, pipeline: str = "p") -> AsyncIterator[Outbox]:
    outbox = Outbox(path, pipeline, max_bytes=max_bytes, drop_oldest=drop_oldest)
    await outbox.open()
    try:
        yield outbox
    finally:
        await outbox.close()


async def waiting(outbox: Outbox, sink: str = "act") -> list[str]:
    return [parcel.delivery.key for parcel in await outbox.page(sink, 10_000)]


async def test_what_was_put_is_there_after_a_new_start_once_per_key_in_order(tmp_path: Path) -> None:
    async with opened(tmp_path / "o.db") as outbox:
        await outbox.put("act", [delivery(1), delivery(2)])
        await outbox.put("act", [delivery(2), delivery(3)])
        await outbox.put("tell", [delivery(1)])
    async with opened(tmp_path / "o.db") as again, opened(tmp_path / "o.db", pipeline="other") as other:
        assert await waiting(again) == ["k1", "k2", "k3"]
        assert await waiting(again, "tell") == ["k1"]
        assert (await again.page("act", 1))[0].delivery == delivery(1)
        assert not await waiting(other)
        await again.remove(await again.page("act", 2))
        assert await waiting(again) == ["k3"]


async def test_a_full_outbox_waits_until_something_was_forwarded(tmp_path: Path) -> None:
    async with opened(tmp_path / "o.db", max_bytes=4096) as outbox:
        count = 0
        with contextlib.suppress(TimeoutError):
            while True:
                await asyncio.wait_for(outbox.put("act", [delivery(count)]), 0.5)
                count += 1
        assert 5 < count < 30
        putting = asyncio.create_task(outbox.put("act", [delivery(100)]))
        await asyncio.sleep(0.05)
        assert not putting.done()
        await outbox.remove(await outbox.page("act", 1))
        assert not await asyncio.wait_for(putting, 10)
        assert await waiting(outbox) == [f"k{number}" for number in range(1, count)] + ["k100"]


async def test_a_full_outbox_that_drops_loses_the_oldest_and_says_how_many(tmp_path: Path) -> None:
    async with opened(tmp_path / "o.db", max_bytes=4096, drop_oldest=True) as outbox:
        lost: Counter[str] = Counter()
        for number in range(100):
            lost += await outbox.put("act", [delivery(number)])
        left = await waiting(outbox)
        assert left == [f"k{number}" for number in range(100 - len(left), 100)]
        assert lost == {"act": 100 - len(left)}


async def test_a_delivery_larger_than_the_outbox_is_refused(tmp_path: Path) -> None:
    async with opened(tmp_path / "o.db", max_bytes=4096) as outbox:
        with pytest.raises(InvalidInput, match="do not fit into max_size 4096"):
            await outbox.put("act", [Delivery("k", {"text": "x" * 5000}, "m")])


async def test_a_disk_that_is_full_stores_nothing_of_a_batch_and_takes_it_later(tmp_path: Path) -> None:
    async with opened(tmp_path / "o.db") as outbox:
        await outbox.put("act", [delivery(0)])
        file = outbox._file
        ((pages,),) = file.read("PRAGMA page_count")
        file.limit_pages(pages + 2)
        with pytest.raises(StorageError, match="disk is full"):
            await outbox.put("act", [Delivery(f"k{number}", {"text": "x" * 1000}, f"m{number}") for number in range(100)])
        assert await waiting(outbox) == ["k0"]
        file.limit_pages(100_000)
        await outbox.put("act", [delivery(1)])
        assert await waiting(outbox) == ["k0", "k1"]


def sink_of(shop: MemorySink, outbox: Outbox, told: Told, *, max_age_s: float | None = None) -> ForwardingSink:
    return ForwardingSink("act", shop, outbox, told, max_age_s=max_age_s)


async def test_what_is_stored_counts_as_confirmed_and_comes_in_order_when_the_other_side_is_back(tmp_path: Path) -> None:
    shop, told, down = MemorySink(SinkContext("p", "act")), Told(), [True]

    def fail(_: Delivery) -> None:
        if down[0]:
            raise Unavailable("uplink down")

    shop.fault = fail
    async with opened(tmp_path / "o.db") as outbox:
        sink = sink_of(shop, outbox, told)
        await sink.open()
        for number in range(600):
            await sink.send([delivery(number)])
        await asyncio.sleep(0.05)
        assert not told.arrived
        assert told.tries
        down[0] = False
        await asyncio.wait_for(sink.drained(), 60)
        await sink.close()
        assert told.arrived == [f"k{number}" for number in range(600)] == [each.key for each in shop.received]
        assert not await waiting(outbox)


async def test_a_sink_that_cannot_even_be_opened_holds_up_nobody(tmp_path: Path) -> None:
    class Late(MemorySink):
        tries = 0

        async def open(self) -> None:
            Late.tries += 1
            if Late.tries < 3:
                raise Unavailable("not yet")

    shop, told = Late(SinkContext("p", "act")), Told()
    async with opened(tmp_path / "o.db") as outbox:
        sink = sink_of(shop, outbox, told)
        await sink.open()
        await sink.send([delivery(1)])
        await asyncio.wait_for(sink.drained(), 60)
        await sink.close()
    assert (told.arrived, Late.tries) == (["k1"], 3)


async def test_one_refused_delivery_becomes_a_dead_letter_and_its_neighbours_arrive(tmp_path: Path) -> None:
    def refuse(each: Delivery) -> None:
        if each.key == "k5":
            raise InvalidInput("no such order")

    shop, told = MemorySink(SinkContext("p", "act")), Told()
    shop.fault = refuse
    async with opened(tmp_path / "o.db") as outbox:
        await outbox.put("act", [delivery(number) for number in range(10)])
        sink = sink_of(shop, outbox, told)
        await sink.open()
        await asyncio.wait_for(sink.drained(), 60)
        await sink.close()
    assert set(told.arrived) == {f"k{number}" for number in range(10) if number != 5}
    assert told.refusals == [("k5", "no such order")]


async def test_what_waited_too_long_becomes_a_dead_letter(tmp_path: Path) -> None:
    shop, told = MemorySink(SinkContext("p", "act")), Told()
    async with opened(tmp_path / "o.db") as outbox:
        await outbox.put("act", [delivery(1)])
        await asyncio.sleep(0.05)
        sink = sink_of(shop, outbox, told, max_age_s=0.02)
        await sink.open()
        await asyncio.wait_for(sink.drained(), 60)
        await sink.close()
    assert not shop.received
    assert told.refusals == [("k1", "waited in the outbox for more than 0.02 s")]


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.sampled_from(["a", "b"]), st.lists(st.integers(0, 20), min_size=1, max_size=6)),
        st.tuples(st.just("take"), st.sampled_from(["a", "b"]), st.integers(1, 8)),
        st.tuples(st.just("restart"), st.just("a"), st.just(0)),
    ),
    max_size=25,
)


@settings(deadline=None, max_examples=60)
@given(STEPS)
def test_an_outbox_is_a_queue_without_repetitions_whatever_happens(steps: Sequence[tuple[str, str, object]]) -> None:
    async def compared() -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "o.db"
            model: dict[str, list[str]] = defaultdict(list)
            outbox = Outbox(path, "p", max_bytes=LARGE, drop_oldest=False)
            await outbox.open()
            for what, sink, argument in steps:
                if what == "put":
                    assert isinstance(argument, list)
                    await outbox.put(sink, [delivery(number) for number in argument])
                    model[sink] += [key for key in dict.fromkeys(f"k{number}" for number in argument) if key not in model[sink]]
                elif what == "take":
                    assert isinstance(argument, int)
                    page = await outbox.page(sink, argument)
                    await outbox.remove(page)
                    assert [parcel.delivery.key for parcel in page] == model[sink][:argument]
                    del model[sink][:argument]
                else:
                    await outbox.close()
                    outbox = Outbox(path, "p", max_bytes=LARGE, drop_oldest=False)
                    await outbox.open()
            rows = [parcel for sink in "ab" for parcel in await outbox.page(sink, 1000)]
            assert [parcel.delivery.key for parcel in rows] == model["a"] + model["b"]
            assert outbox._bytes == sum(parcel.size for parcel in rows)
            await outbox.close()

    asyncio.run(compared())


async def test_a_sink_that_likes_to_wait_gets_what_comes_meanwhile_in_one_batch(tmp_path: Path) -> None:
    batches: list[list[str]] = []

    class Patient(MemorySink):
        batch_max = 3
        batch_wait_s = 2.0

        async def send(self, deliveries: Sequence[Delivery]) -> None:
            batches.append([each.key for each in deliveries])

    async with opened(tmp_path / "o.db") as outbox:
        sink = ForwardingSink("act", Patient(SinkContext("p", "act")), outbox, Told())
        await sink.open()
        for number in range(4):
            await sink.send([delivery(number)])
            await asyncio.sleep(0.05)
        await asyncio.wait_for(sink.drained(), 60)
        await sink.close()
    assert batches == [["k0", "k1", "k2"], ["k3"]]


async def test_room_that_is_made_while_one_looks_is_not_missed_for_another_who_waits(tmp_path: Path) -> None:
    class Interrupted(Outbox):
        """While the first `put` hears that there is no room, room is made, and another sink puts something."""

        other: asyncio.Task[Counter[str]] | None = None

        async def _run(self, work: Callable[[], T]) -> T:
            result = await super()._run(work)
            if result is None and self.other is None and self._bytes:
                self.other = asyncio.create_task(self.put("b", [delivery(3)]))
                await self.remove(await self.page("a", 10))
                await self.other
            return result

    outbox = Interrupted(tmp_path / "o.db", "p", max_bytes=500, drop_oldest=False)
    await outbox.open()
    await outbox.put("a", [delivery(0), delivery(1)])
    async with asyncio.timeout(10):
        await outbox.put("a", [delivery(2)])
    assert outbox.other is not None, "it never was interrupted"
    await outbox.close()


async def test_what_the_disk_took_and_denied_makes_room_by_being_forwarded(tmp_path: Path) -> None:
    class Denying(Outbox):
        """Stores, and says once that it did not."""

        denied = False

        async def put(self, sink: str, deliveries: Sequence[Delivery]) -> Counter[str]:
            dropped = await super().put(sink, deliveries)
            if not self.denied:
                self.denied = True
                raise StorageError("the disk says that it did not write")
            return dropped

    outbox = Denying(tmp_path / "o.db", "p", max_bytes=300, drop_oldest=False)
    await outbox.open()
    act, told = MemorySink(SinkContext("p", "act")), Told()
    sink = ForwardingSink("act", act, outbox, told)
    await sink.open()
    await asyncio.sleep(0.05)  # it looked, and found nothing
    with pytest.raises(StorageError):
        await sink.send([delivery(0)])
    async with asyncio.timeout(10):
        await sink.send([delivery(0)])
        await sink.drained()
    assert list(act.effects) == ["k0"]
    await sink.close()
    await outbox.close()
