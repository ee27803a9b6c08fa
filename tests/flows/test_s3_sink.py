"""Objects of many records: how large, under which names, what a repetition does, and whether the signature is right."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from inferloop.core.errors import Unavailable
from inferloop.core.protocols import Delivery
from inferloop.streams.contexts import SinkContext, SourceContext
from inferloop.streams.sinks.s3 import S3Sink
from inferloop.streams.sources.memory import MemorySource
from support.pipelines import message, numbers_router, open_journal, pipeline
from support.stream_worlds.s3 import Moto


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Moto]:
    server = Moto(tmp_path / "moto")
    yield server
    server.stop()


def sink(**options: Any) -> S3Sink:
    return S3Sink(S3Sink.Config(bucket="out", **options), SinkContext("demo", "lake"))


def deliveries(*numbers: int, size: int = 1) -> list[Delivery]:
    return [Delivery(f"k{number}", {"number": number, "text": "x" * size}, f"m{number}") for number in numbers]


async def test_a_pipeline_stores_every_message_in_objects_no_larger_than_said(server: Moto, tmp_path: Path) -> None:
    messages = [message(number) for number in range(500)]
    lake = {"bucket": "out", "json": {"id": "=id"}, "max_records": 150, "max_wait": "10m", **server.keys}
    source = MemorySource(messages, SourceContext("demo", "feed"))
    with open_journal(tmp_path) as journal:
        async with asyncio.timeout(100), numbers_router(tmp_path) as router:
            await pipeline(sinks={"act": {"s3": lake}}).run(router=router, journal=journal, sources={"feed": source})
    objects = server.objects()
    groups = sorted([[int(record["id"][1:]) for record in records] for records in objects.values()])
    assert [number for group in groups for number in group] == list(range(500))
    assert [len(group) for group in groups] == [150, 150, 150, 50], "the rest did not wait for ten minutes"
    assert all(re.fullmatch(r"demo/act/\d{4}/\d\d/\d\d/\d{6}-[0-9a-f]{32}\.jsonl\.gz", name) for name in objects)
    assert source.acked == messages


async def test_a_batch_beyond_the_size_becomes_several_objects_and_one_record_is_never_split(server: Moto) -> None:
    there = sink(**server.keys, max_size="1KB", key="{digest}")
    await there.open()
    await there.send(deliveries(1, 2, 3, size=400) + deliveries(4, size=5000) + deliveries(5))
    await there.close()
    numbers = sorted([record["number"] for record in records] for records in server.objects().values())
    assert numbers == [[1, 2], [3], [4], [5]]


async def test_a_store_that_is_killed_and_comes_back_gets_the_batch(server: Moto) -> None:
    there = sink(**server.keys)
    await there.open()
    await there.send(deliveries(1))
    server.kill()
    with pytest.raises(Unavailable):
        await there.send(deliveries(2))
    server.start()
    with pytest.raises(Unavailable, match=r"NoSuchBucket|not exist|not found"):
        await there.send(deliveries(2))
    server.client.create_bucket(Bucket="out")
    await there.send(deliveries(2))
    await there.close()
    ((record,),) = server.objects().values()
    assert record == {"idempotency_key": "k2", "number": 2, "text": "x"}


class Forgetful:
    """Stores every object; the first answers never arrive, for it hangs up."""

    def __init__(self) -> None:
        self.url = ""
        self.hang_ups = 2
        self.puts: list[str] = []
        self.objects: dict[str, bytes] = {}
        self.signed_right: list[bool] = []

    async def put(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.puts.append(request.path)
        self.objects[request.path] = body
        self.signed_right.append(_signature(request, self.url + request.path, body) in request.headers["Authorization"])
        if self.hang_ups:
            self.hang_ups -= 1
            assert request.transport is not None
            request.transport.abort()
        return web.Response(headers={"ETag": '"1"'})


@pytest.fixture
async def forgetful() -> AsyncIterator[Forgetful]:
    store = Forgetful()
    app = web.Application()
    app.router.add_put("/{name:.*}", store.put)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    store.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield store
    await runner.cleanup()


def _signature(request: web.Request, url: str, body: bytes) -> str:
    """What botocore would have signed this request with."""
    signed = re.findall(r"SignedHeaders=([^,]+)", request.headers["Authorization"])[0].split(";")
    same = AWSRequest("PUT", url, {name: request.headers[name] for name in signed}, body)
    same.context["timestamp"] = request.headers["x-amz-date"]
    botocore = S3SigV4Auth(Credentials("mine", "geheim"), "s3", "eu-central-1")
    return str(botocore.signature(botocore.string_to_sign(same, botocore.canonical_request(same)), same))


async def test_trying_again_replaces_the_object_and_every_try_is_signed(forgetful: Forgetful) -> None:
    there = sink(endpoint=forgetful.url, region="eu-central-1", access_key="mine", secret_key="geheim")
    await there.open()
    for _ in range(2):
        with pytest.raises(Unavailable):
            await there.send(deliveries(1, 2))
        await asyncio.sleep(1.1)  # the second in the name would be another one
    await there.send(deliveries(1, 2))
    await there.send(deliveries(3))
    await there.close()
    assert len(forgetful.puts) == 4
    assert len(forgetful.objects) == 2
    first = [json.loads(line)["number"] for line in gzip.decompress(forgetful.objects[forgetful.puts[0]]).splitlines()]
    assert first == [1, 2]
    assert all(forgetful.signed_right)
    assert "geheim" not in repr(there._config)
