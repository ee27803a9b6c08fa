from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferloop.core.errors import InvalidInput, Unavailable
from inferloop.core.protocols import Delivery
from inferloop.core.sample import Message
from inferloop.data.journal import StoredDelivery
from inferloop.streams.contexts import SinkContext, SourceContext
from inferloop.streams.delivery.acks import AckSequencer
from inferloop.streams.delivery.backoff import LONGEST_S, OPENS_AFTER, Backoff
from inferloop.streams.delivery.lane import QUEUE_PARCELS, Lane
from inferloop.streams.intake import Intake
from inferloop.streams.sinks.memory import MemorySink
from inferloop.streams.sources.memory import MemorySource
from inferloop.streams.work import Arrival, Parcel, Work


class Record:
    """Keeps `Outcome`."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []

    def confirmed(self, parcel: Parcel) -> None:
        self.told.append(("confirmed", parcel.delivery.key))

    async def refused(self, parcel: Parcel, reason: str) -> None:
        self.told.append((f"refused: {reason}", parcel.delivery.key))

    def lost(self, parcel: Parcel, reason: str) -> None:
        self.told.append((f"lost: {reason}", parcel.delivery.key))

    def retried(self, sink: str) -> None:
        self.told.append(("retried", sink))


def parcel(key: str) -> Parcel:
    return Parcel(Work(key), "act", Delivery(key, {}, key), True, StoredDelivery("act", key, {}))


async def send(lane: Lane, keys: Sequence[str]) -> None:
    for key in keys:
        await lane.put(parcel(key))
    task = asyncio.create_task(lane.run())
    async with asyncio.timeout(60):
        await lane.wait_idle()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_one_refused_delivery_of_a_batch_is_found_and_its_neighbours_arrive() -> None:
    def refuse(delivery: Delivery) -> None:
        if delivery.key == "b":
            raise InvalidInput("no")

    record, sink = Record(), MemorySink(SinkContext("p", "act"), fault=refuse)
    await send(Lane("act", sink, record, required=True), ["a", "b", "c"])
    assert record.told == [("confirmed", "a"), ("refused: no", "b"), ("confirmed", "c")]
    assert list(sink.effects) == ["a", "c"]


async def test_order_is_kept_through_failures() -> None:
    failures = iter([True, False, True, True] + [False] * 100)

    def fail(_: Delivery) -> None:
        if next(failures):
            raise Unavailable("away")

    record, sink = Record(), MemorySink(SinkContext("p", "act"), batched=False, fault=fail)
    await send(Lane("act", sink, record, required=True), ["a", "b", "c"])
    assert [delivery.key for delivery in sink.received] == ["a", "b", "c"]
    assert record.told.count(("retried", "act")) == 3


class Patient(MemorySink):
    """Likes to wait for five deliveries, for a long time."""

    batch_max = 5
    batch_wait_s = 600.0

    def __init__(self) -> None:
        super().__init__(SinkContext("p", "act"))
        self.batches: list[list[str]] = []

    async def send(self, deliveries: Sequence[Delivery]) -> None:
        self.batches.append([delivery.key for delivery in deliveries])
        await super().send(deliveries)


async def test_a_sink_that_likes_to_wait_gets_whole_batches_and_the_rest_when_no_more_is_coming() -> None:
    record, sink = Record(), Patient()
    lane = Lane("act", sink, record, required=True)
    task = asyncio.create_task(lane.run())
    async with asyncio.timeout(60):
        for key in "abcdefg":
            await lane.put(parcel(key))
            await asyncio.sleep(0)
        while not sink.batches:
            await asyncio.sleep(0)
        assert sink.batches == [list("abcde")]
        lane.hurry()
        await lane.wait_idle()
        await lane.put(parcel("h"))
        await lane.wait_idle()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert sink.batches == [list("abcde"), list("fg"), ["h"]]
    assert record.told == [("confirmed", key) for key in "abcdefgh"]


async def test_a_sink_that_waits_gets_a_small_batch_when_its_time_is_over() -> None:
    record, sink = Record(), Patient()
    sink.batch_wait_s = 0.05
    await send(Lane("act", sink, record, required=True), ["a", "b"])
    assert sink.batches == [["a", "b"]]


async def test_a_full_optional_lane_loses_counted_and_never_waits() -> None:
    record = Record()
    lane = Lane("act", MemorySink(SinkContext("p", "act")), record, required=False)
    async with asyncio.timeout(60):
        for number in range(QUEUE_PARCELS + 3):
            await lane.put(parcel(str(number)))
    assert record.told == [("lost: queue full", str(QUEUE_PARCELS + extra)) for extra in range(3)]


@given(st.integers(0, 60))
def test_waiting_grows_with_full_jitter_up_to_the_longest(failures: int) -> None:
    backoff = Backoff()
    delays = [backoff.failed() for _ in range(failures + 1)]
    assert 0 <= delays[-1] <= min(LONGEST_S, 0.05 * 2**failures)
    assert backoff.failures == failures + 1


def test_the_breaker_opens_after_some_failures_and_closes_with_a_success() -> None:
    backoff = Backoff(first_s=60.0, longest_s=60.0)
    for _ in range(OPENS_AFTER):
        assert not backoff.open
        backoff.failed()
    assert backoff.open
    backoff.succeeded()
    assert not backoff.open


@given(st.permutations(range(12)))
def test_acknowledgements_go_out_in_read_order_whatever_settles_first(order: list[int]) -> None:
    async def settle_all() -> tuple[list[bytes], list[int]]:
        payloads = [bytes([number]) for number in range(12)]
        source = MemorySource(payloads, SourceContext("p", "s"))
        sequencer = AckSequencer(source, lambda _: None)
        arrivals = [Arrival(message, 0) for message in await source.read()]
        for arrival in arrivals:
            sequencer.expect(arrival)
        early = []
        for place in order:
            sequencer.settle(arrivals[place])
            await sequencer.flush()
            early.append(len(source.acked))
        return source.acked, early

    acked, counts = asyncio.run(settle_all())
    assert acked == [bytes([number]) for number in range(12)]
    settled: set[int] = set()
    for place, count in zip(order, counts, strict=True):
        settled.add(place)
        assert set(range(count)) <= settled


def arrivals(count: int) -> list[Arrival]:
    return [Arrival(Message(b"%d" % number, "s", 0.0), 0) for number in range(count)]


async def test_the_intake_gives_what_is_at_hand_without_waiting() -> None:
    intake = Intake(100)
    await intake.put(arrivals(3))
    assert len(await intake.take(64, delay_s=0.0, most=64)) == 3


async def test_the_intake_lingers_for_a_full_batch_but_not_longer_than_told() -> None:
    intake = Intake(100)
    await intake.put(arrivals(3))
    taking = asyncio.create_task(intake.take(5, delay_s=600.0, most=5))
    await asyncio.sleep(0)
    await intake.put(arrivals(2))
    assert len(await asyncio.wait_for(taking, 60)) == 5
    await intake.put(arrivals(1))
    assert len(await asyncio.wait_for(intake.take(5, delay_s=0.01, most=5), 60)) == 1


async def test_a_full_intake_holds_up_its_source_until_something_is_taken() -> None:
    intake = Intake(4)
    putting = asyncio.create_task(intake.put(arrivals(6)))
    await asyncio.sleep(0)
    assert not putting.done()
    await intake.take(3, delay_s=0.0, most=3)
    await asyncio.wait_for(putting, 60)


async def test_a_closed_intake_gives_the_rest_then_nothing() -> None:
    intake = Intake(100)
    await intake.put(arrivals(2))
    intake.close()
    assert [len(await intake.take(64, delay_s=1.0, most=64)) for _ in range(2)] == [2, 0]


@pytest.mark.parametrize("bound", [1, 7])
async def test_whatever_is_put_is_taken_once_and_in_order(bound: int) -> None:
    intake, them = Intake(bound), arrivals(50)

    async def put() -> None:
        for start in range(0, 50, 5):
            await intake.put(them[start : start + 5])
        intake.close()

    putting, taken = asyncio.create_task(put()), []
    while batch := await intake.take(4, delay_s=0.0, most=4):
        taken += batch
    await putting
    assert taken == them
