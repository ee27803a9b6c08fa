"""The HTTP source: 200 is the acknowledgment, and every other answer lets a client that tries again lose nothing."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

import aiohttp
import pytest

from inferloop.core.sample import Message
from inferloop.streams.contexts import SourceContext
from inferloop.streams.signing import SIGNATURE, TIMESTAMP, Signing, signature
from inferloop.streams.sources.http import HttpSource
from support.broker import free_port


class Door:
    """An open source, and a client of it."""

    def __init__(self, source: HttpSource, client: aiohttp.ClientSession, url: str) -> None:
        self.source = source
        self.client = client
        self.url = url

    def post(self, body: bytes = b"{}", **headers: str) -> asyncio.Task[tuple[int, Any]]:
        async def answer() -> tuple[int, Any]:
            names = {name.replace("_", "-"): value for name, value in headers.items()}
            async with self.client.post(self.url, data=body, headers=names) as response:
                if response.status in (503, 504, 408):
                    assert int(response.headers["Retry-After"]) > 0
                return response.status, await response.json()

        return asyncio.create_task(answer())

    async def read(self, count: int = 1) -> Sequence[Message]:
        messages: list[Message] = []
        async with asyncio.timeout(30):
            while len(messages) < count:
                messages += await self.source.read()
        return messages


@contextlib.asynccontextmanager
async def door(**options: Any) -> AsyncIterator[Door]:
    port = free_port()
    source = HttpSource(HttpSource.Config(port=port, **options), SourceContext("p", "feed"))
    await source.open()
    async with aiohttp.ClientSession() as client:
        try:
            yield Door(source, client, f"http://127.0.0.1:{port}{options.get('path', '/')}")
        finally:
            await source.close()


async def test_the_answer_comes_after_the_acknowledgment_and_not_before() -> None:
    async with door(path="/events") as there:
        asked = there.post(b"hello", Idempotency_Key="k1", Authorization="Bearer mine")
        (message,) = await there.read()
        await asyncio.sleep(0.2)
        assert not asked.done()
        await there.source.ack([message])
        assert await asked == (200, {"acknowledged": 1})
    assert (message.payload, message.topic, message.position) == (b"hello", "/events", "")
    assert message.headers.get("idempotency-key") == message.headers.get("Idempotency-Key") == "k1"
    assert "Authorization" not in message.headers


async def test_the_message_of_a_client_that_left_is_finished() -> None:
    async with door(in_flight=1) as there:
        asked = there.post(b"first")
        (message,) = await there.read()
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
        assert (await there.post(b"second"))[0] == 503, "the first still counts"
        await there.source.ack([message])
        again = there.post(b"second")
        (second,) = await there.read()
        await there.source.ack([second])
        assert (await again)[0] == 200
    assert second.payload == b"second"


async def test_beyond_in_flight_the_answer_is_503_at_once() -> None:
    async with door(in_flight=2) as there:
        asked = [there.post(b"1"), there.post(b"2")]
        messages = await there.read(2)
        assert (await there.post(b"3"))[0] == 503
        await there.source.ack(messages)
        assert [status for status, _ in await asyncio.gather(*asked)] == [200, 200]


async def test_what_is_not_confirmed_in_time_is_504_and_still_counts() -> None:
    async with door(wait="100ms", in_flight=1) as there:
        assert (await there.post())[0] == 504
        assert (await there.post())[0] == 503
        await there.source.ack(await there.read())
        assert (await there.post())[0] == 504


async def test_closing_tells_who_waits_to_come_again_and_gives_out_the_answers_that_are_due() -> None:
    async with door(split="lines") as there:
        done = there.post(b"1\n2\n")
        first = await there.read(2)
        half = there.post(b"3\n4\n")
        second = await there.read(2)
        await there.source.ack([*first, second[0]])
        await there.source.close()
        assert await done == (200, {"acknowledged": 2})
        status, content = await half
    assert (status, content["acknowledged"]) == (503, 1)


@pytest.mark.parametrize(("split", "body"), [("lines", b'{"n": 1}\r\n\n{"n": 2}\n'), ("array", b'[{"n": 1}, {"n": 2}]')])
async def test_a_body_of_several_is_answered_after_all_of_them(split: str, body: bytes) -> None:
    async with door(split=split) as there:
        asked = there.post(body, Idempotency_Key="one-for-both")
        messages = await there.read(2)
        await there.source.ack(messages[:1])
        await asyncio.sleep(0.1)
        assert not asked.done()
        await there.source.ack(messages[1:])
        assert await asked == (200, {"acknowledged": 2})
    assert [json.loads(message.payload)["n"] for message in messages] == [1, 2]
    assert "Idempotency-Key" not in messages[0].headers, "two messages must not get one id"


async def test_what_can_never_be_taken_is_refused_for_good() -> None:
    async with door(split="array", max_body="1KB") as there:
        assert (await there.post(b"{}"))[0] == 400
        assert (await there.post(b"x" * 2000))[0] == 413
        assert (await there.post(b"[]"))[0] == 200


@pytest.mark.parametrize("given", ["", "Bearer wrong", "Basic right", "Bearer"])
async def test_a_wrong_token_is_401(given: str) -> None:
    async with door(tokens=["right", "other"]) as there:
        assert (await there.post(Authorization=given))[0] == 401
        asked = there.post(Authorization="Bearer other")
        await there.source.ack(await there.read())
        assert (await asked)[0] == 200


async def test_a_wrong_or_old_signature_is_401() -> None:
    async with door(hmac={"secret": "s3cret"}) as there:
        now, old = str(int(time.time())), str(int(time.time()) - 3600)
        wrong = [
            {},
            {SIGNATURE: signature("other", b"{}", now), TIMESTAMP: now},
            {SIGNATURE: signature("s3cret", b"{ }", now), TIMESTAMP: now},
            {SIGNATURE: signature("s3cret", b"{}", old), TIMESTAMP: old},
            {SIGNATURE: signature("s3cret", b"{}", old), TIMESTAMP: now},
            {SIGNATURE: signature("s3cret", b"{}")},
        ]
        assert [(await there.post(**headers))[0] for headers in wrong] == [401] * len(wrong)
        asked = there.post(**Signing(secret="s3cret").headers(b"{}"))
        await there.source.ack(await there.read())
        assert (await asked)[0] == 200


async def test_the_signatures_of_github_are_understood() -> None:
    """The example of GitHub's documentation of webhooks."""
    secret, body = "It's a Secret to Everybody", b"Hello, World!"
    expected = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    assert signature(secret, body) == expected
    async with door(hmac={"secret": secret, "header": "X-Hub-Signature-256", "timestamp": None}) as there:
        asked = there.post(body, **{"X-Hub-Signature-256": expected})
        await there.source.ack(await there.read())
        assert (await asked)[0] == 200


def test_secrets_are_not_shown() -> None:
    config = HttpSource.Config(port=1, tokens=["t0ken"], hmac={"secret": "s3cret"})
    assert "t0ken" not in repr(config)
    assert "s3cret" not in repr(config)
