"""InfluxDB's HTTP interface, version 1 and 2: what is asked, and what each answer leads to."""

from __future__ import annotations

import base64
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from inferloop.core.errors import InvalidInput, Unavailable
from inferloop.core.protocols import Delivery
from inferloop.streams.contexts import SinkContext, SourceContext
from inferloop.streams.sinks.influxdb import InfluxDbSink
from inferloop.streams.sinks.memory import MemorySink
from inferloop.streams.sources.memory import MemorySource
from support.pipelines import message, numbers_router, open_journal, pipeline
from support.stream_worlds.influxdb import Influx, influx

POINT = {"at": "=time", "machine": "=key", "score": "=score", "count": "=n"}
V2: dict[str, Any] = {"org": "plant & co", "bucket": "wear", "token": "t1"}


@pytest.fixture
async def server() -> AsyncIterator[Influx]:
    async with influx() as server:
        yield server


def sink(url: str, **options: Any) -> InfluxDbSink:
    config = {"url": url, "measurement": "m", "point": POINT, "time": "at", "tags": ["machine"], **(options or V2)}
    return InfluxDbSink(InfluxDbSink.Config(**config), SinkContext("p", "points"))


def delivery(number: int, **changes: Any) -> Delivery:
    return Delivery(f"k{number}", {"at": 100 + number, "machine": "a b", "score": 0.5, "count": number, **changes}, f"m{number}")


async def sent(there: InfluxDbSink, *batches: list[Delivery]) -> None:
    await there.open()
    try:
        for batch in batches:
            await there.send(batch)
    finally:
        await there.close()


async def test_version_2_has_org_bucket_precision_and_token(server: Influx) -> None:
    await sent(sink(server.url), [delivery(1), delivery(2)])
    assert server.queries == [{"org": "plant & co", "bucket": "wear", "precision": "ns"}]
    assert server.authorizations == ["Token t1"]
    assert server.points == {
        ("m", (("machine", "a b"),), (100 + number) * 10**9): {"score": 0.5, "count": number} for number in (1, 2)
    }


async def test_version_1_has_database_policy_and_password(server: Influx) -> None:
    one = {"database": "wear", "retention_policy": "week", "user": "me", "password": "geheim", "precision": "us"}
    await sent(sink(server.url, **one), [delivery(1)])
    assert server.queries == [{"db": "wear", "rp": "week", "precision": "u"}]
    assert server.authorizations == ["Basic " + base64.b64encode(b"me:geheim").decode()]
    assert [at for _, _, at in server.points] == [101 * 10**6]


@pytest.mark.parametrize("status", [401, 403, 404, 408, 429, 500, 503])
async def test_what_is_not_the_fault_of_a_point_is_tried_again(server: Influx, status: int) -> None:
    there = sink(server.url)
    await there.open()
    server.answers = [web.json_response({"message": "not now"}, status=status)]
    with pytest.raises(Unavailable, match=f"answered {status}: .*not now"):
        await there.send([delivery(1)])
    await there.send([delivery(1)])
    await there.close()
    assert len(server.points) == 1


async def test_a_server_that_says_when_is_left_alone_until_then(server: Influx) -> None:
    there = sink(server.url)
    await there.open()
    server.answers = [web.Response(status=429, headers={"Retry-After": "1"})]
    with pytest.raises(Unavailable):
        await there.send([delivery(1)])
    began = time.monotonic()
    await there.send([delivery(1)])
    await there.close()
    assert time.monotonic() - began > 0.9
    assert server.requests == 2


async def test_a_partial_write_is_refused_with_its_reason(server: Influx) -> None:
    there = sink(server.url)
    await there.open()
    with pytest.raises(InvalidInput, match=r"answered 400: .*partial write: dropped=1"):
        await there.send([delivery(1), delivery(2, at=-5)])
    with pytest.raises(InvalidInput, match="'soon' is no time"):
        await there.send([delivery(3), delivery(4, at="soon")])
    await there.close()
    assert len(server.points) == 1


async def test_a_type_keeps_whole_numbers_and_fractions_in_one_column(server: Influx) -> None:
    await sent(sink(server.url, **V2, types={"count": "float"}), [delivery(1, count=1), delivery(2, count=1.5)])
    assert [fields["count"] for fields in server.points.values()] == [1.0, 1.5]
    with pytest.raises(InvalidInput, match="partial write"):
        await sent(sink(server.url), [delivery(3, count=1)])


async def test_in_a_pipeline_one_bad_point_becomes_a_dead_letter_and_no_other(server: Influx, tmp_path: Path) -> None:
    server.oldest = 10 * 10**9
    messages = [message(number, at=5 if number == 7 else 1000 + number) for number in range(20)]
    point = {"at": "=time", "machine": "=key", "score": "=score", "id": "=id"}
    act = {"influxdb": {"url": server.url, "measurement": "m", "time": "at", "tags": ["machine"], "point": point, **V2}}
    letters = MemorySink(SinkContext("demo", "dead_letter"))
    source = MemorySource(messages, SourceContext("demo", "feed"))
    with open_journal(tmp_path) as journal:
        async with numbers_router(tmp_path) as router:
            file = pipeline(sinks={"act": act})
            await file.run(router=router, journal=journal, sources={"feed": source}, sinks={"dead_letter": letters})
    assert {fields["id"] for fields in server.points.values()} == {f"m{number}" for number in range(20) if number != 7}
    (letter,) = letters.received
    assert "partial write" in letter.payload["reason"]
    assert source.acked == messages
