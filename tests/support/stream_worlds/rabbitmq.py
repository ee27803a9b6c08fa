"""RabbitMQ with a durable queue."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import aio_pika

from inferloop.core import plugins
from inferloop.streams.contexts import SinkContext, SourceContext
from support.broker import free_port
from support.own_server import OwnServer, binary
from support.stream_worlds import Payloads, SinkWorld, SourceWorld


class RabbitMq(OwnServer):
    """One node with the queues `feed` and `out`; it takes seconds to start."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._wrapper = binary("rabbitmq-server", install="apt-get install rabbitmq-server")
        self._inner_port = free_port()
        self.url = f"amqp://guest:guest@127.0.0.1:{self.port}/"
        (folder / "plugins").write_text("[].")
        self.start()

        async def declare(channel: Any) -> None:
            for name in ("feed", "out"):
                await channel.declare_queue(name, durable=True)

        self.ask(declare)

    def command(self) -> Sequence[str]:
        """See `OwnServer`; behind the wrapper, which would change the user, is the program."""
        inner = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
        return [str(inner if inner.exists() else self._wrapper)]

    def start(self) -> None:
        """See `OwnServer`; ready means that it answers."""
        folder, node = str(self.folder), f"t{self.port}@localhost"
        settings = {
            "HOME": folder,
            "RABBITMQ_NODENAME": node,
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self._inner_port),
            "RABBITMQ_MNESIA_BASE": f"{folder}/mnesia",
            "RABBITMQ_LOG_BASE": f"{folder}/log",
            "RABBITMQ_CONFIG_FILE": f"{folder}/none",
            "RABBITMQ_GENERATED_CONFIG_DIR": f"{folder}/generated",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{folder}/plugins",
        }
        with (self.folder / "server.log").open("ab") as log:
            environment = {**os.environ, **settings}
            self._process = subprocess.Popen(
                self.command(), stdout=log, stderr=log, env=environment, cwd=folder, start_new_session=True
            )
        deadline = time.monotonic() + 90
        while True:
            with contextlib.suppress(AssertionError):
                self.ask(_nothing)
                return
            assert self._process.poll() is None, (self.folder / "server.log").read_text()[-500:]
            assert time.monotonic() < deadline, "rabbitmq does not answer"
            time.sleep(0.2)

    def kill(self) -> None:
        """SIGKILL for the shell and the node that it started."""
        self._signal(signal.SIGKILL)

    def stop(self) -> None:
        """The same: nobody needs an orderly end that takes seconds."""
        if self._process is not None:
            self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        assert self._process.poll() is None, "it ended before it was killed"
        os.killpg(self._process.pid, number)
        self._process.wait(60)
        self._process = None

    def source(self, **changes: Any) -> dict[str, Any]:
        """The entry of a source in a pipeline file."""
        return {"rabbitmq": {"url": self.url, "queue": "feed", **changes}}

    def put(self, payloads: Payloads) -> None:
        """Publish all; returns when the broker has confirmed every one."""

        async def publish(channel: Any) -> None:
            for start in range(0, len(payloads), 500):
                await asyncio.gather(*(_publish(channel, payload) for payload in payloads[start : start + 500]))

        self.ask(publish)

    def ask(self, question: Callable[[Any], Awaitable[Any]]) -> Any:
        """Whatever a channel answers; may be called where an event loop runs."""
        answers: list[Any] = []

        async def connected() -> None:
            with contextlib.suppress(OSError, aio_pika.exceptions.AMQPError):
                connection = await aio_pika.connect(self.url, timeout=5)
                answers.append(await question(await connection.channel()))
                await connection.close()

        thread = threading.Thread(target=lambda: asyncio.run(connected()))
        thread.start()
        thread.join(120)
        assert answers, "rabbitmq did not answer"
        return answers[0]


async def _nothing(_: Any) -> None:
    return None


async def _publish(channel: Any, payload: bytes) -> None:
    await channel.default_exchange.publish(aio_pika.Message(payload, delivery_mode=2), "feed")


@contextlib.asynccontextmanager
async def rabbitmq_source(folder: Path) -> AsyncIterator[SourceWorld]:
    server = RabbitMq(folder / "rabbitmq")
    source = plugins.load("sources", "rabbitmq")
    config = source.Config(**server.source()["rabbitmq"])
    try:
        yield SourceWorld(lambda: source(config, SourceContext("p", "feed")), server.put)
    finally:
        server.stop()


@contextlib.asynccontextmanager
async def rabbitmq_sink(folder: Path, _: Any) -> AsyncIterator[SinkWorld]:
    server = RabbitMq(folder / "rabbitmq")
    sink = plugins.load("sinks", "rabbitmq")
    config = sink.Config(url=server.url, routing_key="out")

    async def arrived(channel: Any) -> list[str]:
        queue = await channel.get_queue("out")
        keys: list[str] = []
        while (message := await queue.get(fail=False)) is not None:
            assert message.headers["idempotency-key"] == message.message_id
            keys.append(message.message_id)
        return keys

    try:
        yield SinkWorld(lambda: sink(config, SinkContext("p", "act")), lambda: server.ask(arrived))
    finally:
        server.stop()
