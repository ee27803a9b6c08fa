"""Files that rotate, answers that mislead and values that no column takes: nothing is lost, and nothing waits for ever."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from aiohttp import web

from inferloop.core.errors import InvalidInput, Unauthorized
from inferloop.core.protocols import Delivery
from inferloop.core.sample import Message
from inferloop.streams.contexts import SinkContext, SourceContext
from inferloop.streams.signing import SignatureCheck
from inferloop.streams.sinks.file import FileSink
from inferloop.streams.sinks.sqlite import SqliteSink
from inferloop.streams.sinks.stdout import StdoutSink
from inferloop.streams.sinks.webhook import WebhookSink
from inferloop.streams.sources.file import FileSource


def delivery(key: str, **payload: object) -> Delivery:
    return Delivery(key, payload, key)


def following(path: Path, **options: object) -> FileSource:
    return FileSource(FileSource.Config(path=path, follow=True, **options), SourceContext("p", "feed"))


async def texts(source: FileSource, count: int) -> list[bytes]:
    messages: list[Message] = []
    async with asyncio.timeout(60):
        while len(messages) < count:
            messages += await source.read()
    return [message.payload for message in messages]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_a_refusal_and_is_never_followed_with_another_method(status: int) -> None:
    seen: list[str] = []

    async def handle(request: web.Request) -> web.Response:
        seen.append(f"{request.method} {request.path}")
        return web.Response(status=status if request.path == "/" else 200, headers={"Location": "/elsewhere"})

    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    sink = WebhookSink(WebhookSink.Config(url=f"http://127.0.0.1:{runner.addresses[0][1]}/"), SinkContext("p", "act"))
    await sink.open()
    try:
        with pytest.raises(InvalidInput, match=str(status)):
            await sink.send([delivery("k")])
    finally:
        await sink.close()
        await runner.cleanup()
    assert seen == ["POST /"]


def test_a_webhook_without_a_time_limit_is_refused() -> None:
    with pytest.raises(ValueError, match="greater than 0"):
        WebhookSink.Config(url="http://127.0.0.1/", timeout="0s")


async def test_a_number_that_no_column_takes_is_refused_alone_and_not_tried_for_ever(tmp_path: Path) -> None:
    config = SqliteSink.Config(path=tmp_path / "out.db", table="effects", row={"n": "=n"})
    sink = SqliteSink(config, SinkContext("p", "act"))
    await sink.open()
    with pytest.raises(InvalidInput):
        await sink.send([delivery("big", n=2**70)])
    await sink.send([delivery("small", n=1)])
    await sink.close()


async def test_a_file_that_was_rotated_gets_its_lines_under_its_name_again(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    sink = FileSink(FileSink.Config(path=path), SinkContext("p", "act"))
    await sink.open()
    await sink.send([delivery("a", n=1)])
    path.rename(tmp_path / "out.jsonl.1")
    await sink.send([delivery("b", n=2)])
    await sink.close()
    assert json.loads(path.read_text()) == {"n": 2}


async def test_a_followed_file_that_was_rotated_goes_on_with_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "feed.jsonl"
    path.write_bytes(b"[1]\n[2]\n")
    source = following(path)
    await source.open()
    before = await texts(source, 2)
    path.rename(tmp_path / "feed.jsonl.1")
    path.write_bytes(b"[3]\n[4]\n[5]\n")
    after = await texts(source, 3)
    await source.close()
    assert (before, after) == ([b"[1]", b"[2]"], [b"[3]", b"[4]", b"[5]"])


async def test_a_followed_file_that_was_emptied_is_read_from_its_start(tmp_path: Path) -> None:
    path = tmp_path / "feed.csv"
    path.write_bytes(b"a\n1\n22\n")
    source = following(path)
    await source.open()
    await texts(source, 2)
    path.write_bytes(b"a\n3\n")
    assert await texts(source, 1) == [b"3"]
    await source.close()


@pytest.mark.parametrize("follow", [False, True])
async def test_a_line_that_is_too_long_ends_the_source_and_is_never_cut(follow: bool, tmp_path: Path) -> None:
    path = tmp_path / "feed.jsonl"
    path.write_bytes(b"[1]\n[" + b"2" * 100 + b"]\n[3]\n")
    source = FileSource(FileSource.Config(path=path, follow=follow, max_line=50), SourceContext("p", "feed"))
    await source.open()
    assert await texts(source, 1) == [b"[1]"]
    with pytest.raises(InvalidInput, match="at byte 4 is longer than 50 bytes"):
        await texts(source, 1)
    await source.close()


async def test_a_csv_record_is_given_when_its_quotes_are_closed(tmp_path: Path) -> None:
    path = tmp_path / "feed.csv"
    path.write_bytes(b'a,b\n1,"two\n')
    source = following(path)
    await source.open()
    reading = asyncio.create_task(texts(source, 1))
    await asyncio.sleep(0.05)
    assert not reading.done()
    with path.open("ab") as file:
        file.write(b'lines"\n')
    assert await reading == [b'1,"two\nlines"']
    await source.close()


async def test_a_stray_quote_costs_time_in_proportion_to_the_file(tmp_path: Path) -> None:
    path = tmp_path / "feed.csv"
    path.write_bytes(b'a\n"x\n' + b"0123456789\n" * 200_000)
    source = FileSource(FileSource.Config(path=path), SourceContext("p", "feed"))
    await source.open()
    started = time.process_time()
    read: Sequence[bytes] = await texts(source, 1)
    await source.close()
    assert len(read[0]) > 2_000_000
    assert time.process_time() - started < 5


async def test_a_reader_that_does_not_read_holds_up_its_sink_and_not_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    sink = StdoutSink(StdoutSink.Config(), SinkContext("p", "act"))
    with os.fdopen(reading, "rb") as reader, os.fdopen(writing, "w") as writer:
        monkeypatch.setattr(sys, "stdout", writer)
        sending = asyncio.create_task(sink.send([delivery(str(number), text="x" * 1000) for number in range(100)]))
        await asyncio.sleep(0.1)
        assert not sending.done()
        lines = [await asyncio.to_thread(reader.readline) for _ in range(100)]
        await asyncio.wait_for(sending, 60)
        monkeypatch.undo()
    assert lines == [b'{"text":"' + b"x" * 1000 + b'"}\n'] * 100


async def test_a_webhook_signs_its_body_and_brings_its_token() -> None:
    seen: list[web.Request] = []
    bodies: list[bytes] = []

    async def handle(request: web.Request) -> web.Response:
        seen.append(request)
        bodies.append(await request.read())
        return web.Response()

    app = web.Application()
    app.router.add_post("/", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
    config = WebhookSink.Config(url=url, token="geheim", hmac={"secret": "s"})  # a test's own
    sink = WebhookSink(config, SinkContext("p", "act"))
    await sink.open()
    await sink.send([Delivery("k", {"a": 1}, "m")])
    await sink.close()
    await runner.cleanup()
    SignatureCheck(secret="s").check(seen[0].headers, bodies[0])
    with pytest.raises(Unauthorized):
        SignatureCheck(secret="s").check(seen[0].headers, bodies[0] + b" ")
    assert seen[0].headers["Authorization"] == "Bearer geheim"
    assert "geheim" not in repr(config)
