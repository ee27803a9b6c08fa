"""NATS with JetStream on files."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import nats

from inferloop.core import plugins
from inferloop.streams.contexts import SinkContext, SourceContext
from support.own_server import OwnServer, binary
from support.stream_worlds import Payloads, SinkWorld, SourceWorld

STREAM, SUBJECT = "FEED", "feed.1"


class Nats(OwnServer):
    """One nats-server with a stream for everything under `feed.`."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._binary = binary("nats-server", install="apt-get install nats-server")
        self.url = f"nats://127.0.0.1:{self.port}"
        self.start()
        self.ask(lambda js: js.add_stream(name=STREAM, subjects=["feed.>"]))

    def command(self) -> Sequence[str]:
        """See `OwnServer`."""
        return [self._binary, "-a", "127.0.0.1", "-p", str(self.port), "-js", "-sd", str(self.folder / "js")]

    def source(self, **changes: Any) -> dict[str, Any]:
        """The entry of a source in a pipeline file."""
        return {"nats": {"url": self.url, "subject": "feed.>", "ack_wait": "2s", **changes}}

    def put(self, payloads: Payloads) -> None:
        """Publish all; returns when the stream has stored every one."""

        async def publish(js: Any) -> None:
            for start in range(0, len(payloads), 500):
                sent = [await js.publish_async(SUBJECT, payload) for payload in payloads[start : start + 500]]
                await asyncio.gather(*sent)

        self.ask(publish)

    def ask(self, question: Callable[[Any], Awaitable[Any]]) -> Any:
        """Whatever JetStream answers; may be called where an event loop runs."""
        answers: list[Any] = []

        async def connected() -> None:
            client = await nats.connect(self.url)
            answers.append(await question(client.jetstream(timeout=30)))
            await client.close()

        thread = threading.Thread(target=lambda: asyncio.run(connected()))
        thread.start()
        thread.join(120)
        assert answers, "JetStream did not answer"
        return answers[0]


@contextlib.asynccontextmanager
async def nats_source(folder: Path) -> AsyncIterator[SourceWorld]:
    server = Nats(folder / "nats")
    source = plugins.load("sources", "nats")
    config = source.Config(**server.source()["nats"])
    try:
        yield SourceWorld(lambda: source(config, SourceContext("p", "feed")), server.put)
    finally:
        server.stop()


@contextlib.asynccontextmanager
async def nats_sink(folder: Path, _: Any) -> AsyncIterator[SinkWorld]:
    server = Nats(folder / "nats")
    sink = plugins.load("sinks", "nats")
    config = sink.Config(url=server.url, subject="feed.out.{number}")

    async def stored(js: Any) -> list[str]:
        info = await js.stream_info(STREAM)
        messages = [await js.get_msg(STREAM, number + 1) for number in range(info.state.messages)]
        for message in messages:
            assert message.headers["Nats-Msg-Id"] == "k" + message.subject.rpartition(".")[2]
        return [message.headers["Nats-Msg-Id"] for message in messages]

    try:
        yield SinkWorld(lambda: sink(config, SinkContext("p", "act")), lambda: server.ask(stored))
    finally:
        server.stop()
