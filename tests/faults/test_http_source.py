"""Messages by HTTP: an answer means done, and a client that tries again loses nothing across kills."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from inferloop.core.errors import Unavailable
from inferloop.core.sample import Message
from inferloop.streams.contexts import SourceContext
from inferloop.streams.sources.http import HttpSource
from support.broker import free_port
from support.pipelines import HOT, content, message, numbers_registry, save
from support.runs import Run, decided, wait_until
from support.stream_worlds.posts import Posts

MESSAGES = 2000


@asynccontextmanager
async def listening(**config: Any) -> AsyncIterator[HttpSource]:
    source = HttpSource(HttpSource.Config(port=0, **config), SourceContext("p", "feed"))
    await source.open()
    try:
        yield source
    finally:
        await source.close()


async def post(source: HttpSource, body: bytes = b"{}", *, path: str = "/", **headers: str) -> tuple[int, str]:
    url = f"http://127.0.0.1:{source.port}{path}"
    async with aiohttp.ClientSession() as session, session.post(url, data=body, headers=headers) as response:
        return response.status, await response.text()


async def first(source: HttpSource) -> Sequence[Message]:
    async with asyncio.timeout(10):
        return await source.read()


async def test_the_answer_comes_with_the_acknowledgement_and_not_before() -> None:
    async with listening() as source:
        posting = asyncio.create_task(post(source, b"hello", **{"X-Id": "7"}))
        (arrived,) = await first(source)
        await asyncio.sleep(0.1)
        assert not posting.done()
        assert (arrived.payload, arrived.topic, arrived.headers["x-id"]) == (b"hello", "/", "7")
        await source.ack([arrived])
        assert await posting == (200, "done\n")


async def test_a_client_that_leaves_takes_nothing_back() -> None:
    async with listening() as source:
        posting = asyncio.create_task(post(source, b"hello"))
        (arrived,) = await first(source)
        posting.cancel()
        await asyncio.gather(posting, return_exceptions=True)
        await source.ack([arrived])
        posting = asyncio.create_task(post(source, b"again"))
        (second,) = await first(source)
        await source.ack([second])
        assert (await posting)[0] == 200


async def test_one_more_than_may_wait_is_told_to_try_again() -> None:
    async with listening(in_flight=2) as source:
        waiting = [asyncio.create_task(post(source)) for _ in range(2)]
        messages = list(await first(source))
        while len(messages) < 2:
            messages += await first(source)
        assert await post(source) == (503, "2 requests wait already: try again\n")
        await source.ack(messages)
        assert [await each for each in waiting] == [(200, "done\n")] * 2


async def test_what_is_not_done_when_it_ends_or_in_time_is_told_to_try_again() -> None:
    async with listening(wait="100ms") as source:
        assert await post(source) == (503, "not done within 0.1 s, and still worked on: try again\n")
        (arrived,) = await first(source)
        await source.ack([arrived])
    async with listening() as source:
        posting = asyncio.create_task(post(source))
        await first(source)
        await source.close()
        assert await posting == (503, "the pipeline ends: try again\n")


async def test_only_who_has_the_token_or_the_signature_is_heard() -> None:
    async with listening(token="geheim") as source:  # a test's own
        assert (await post(source))[0] == 401
        assert (await post(source, Authorization="Bearer falsch"))[0] == 401
        posting = asyncio.create_task(post(source, Authorization="Bearer geheim"))
        (arrived,) = await first(source)
        assert "authorization" not in arrived.headers
        await source.ack([arrived])
        assert (await posting)[0] == 200
    async with listening(signature={"secret": "s"}) as source:
        signed = "sha256=" + hmac.new(b"s", b"body", hashlib.sha256).hexdigest()
        assert (await post(source, b"body"))[0] == 401
        assert (await post(source, b"body!", **{"X-Hub-Signature-256": signed}))[0] == 401
        posting = asyncio.create_task(post(source, b"body", **{"X-Hub-Signature-256": signed}))
        await source.ack(await first(source))
        assert (await posting)[0] == 200
    assert "geheim" not in repr(HttpSource.Config(port=1, token="geheim"))


async def test_other_paths_large_bodies_and_a_taken_port_are_refused() -> None:
    async with listening(path="/in", max_body="1KB") as source:
        assert (await post(source))[0] == 404
        assert (await post(source, b"x" * 2000, path="/in"))[0] == 413
        with pytest.raises(Unavailable, match=str(source.port)):
            await HttpSource(HttpSource.Config(port=source.port), SourceContext("p", "feed")).open()


def test_a_client_that_tries_again_loses_nothing_by_kills(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("INFERLOOP_HOME", str(home))
    numbers_registry(home, HOT).close()
    port = free_port()
    table = {"path": str(tmp_path / "acts.db"), "table": "acts", "row": {"id": "=id"}}
    file = save(tmp_path / "demo.yaml", content(sources={"feed": {"http": {"port": port}}}, sinks={"act": {"sqlite": table}}))
    posts = Posts(port, clients=50)
    try:
        posts.put([message(number) for number in range(MESSAGES)])
        for _ in range(2):
            run = Run(file)
            least = len(posts.taken) + 200
            wait_until(lambda least=least: len(posts.taken) > least, run)
            run.kill()
            assert 0 < len(posts.taken) < MESSAGES, "the kill came too late"
        run = Run(file)
        wait_until(lambda: len(posts.taken) == MESSAGES, run)
        run.terminate()
        run.end()
    finally:
        posts.stop()
    with sqlite3.connect(tmp_path / "acts.db") as database:
        acted = [id_ for (id_,) in database.execute("SELECT id FROM acts")]
    database.close()
    assert sorted(acted) == sorted(f"m{number}" for number in range(MESSAGES))
    assert len(decided(home)) == MESSAGES
    assert posts.tries > MESSAGES
