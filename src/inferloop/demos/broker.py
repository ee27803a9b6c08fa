"""An MQTT broker inside this process, on a free port of the loopback address. It speaks MQTT 3.1.1 and keeps nothing on disk."""

from __future__ import annotations

import asyncio
import logging
import socket
from types import TracebackType
from typing import TYPE_CHECKING, Self

from inferloop.core.errors import Unavailable
from inferloop.core.plugins import missing_package

if TYPE_CHECKING:
    from amqtt.broker import Broker


class LoopbackBroker:
    """`async with LoopbackBroker() as broker: broker.url`."""

    def __init__(self) -> None:
        self.port = _free_port()
        self._broker: Broker | None = None

    @property
    def url(self) -> str:
        """`mqtt://127.0.0.1:PORT`."""
        return f"mqtt://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        """Start listening.

        Raises:
            MissingDependency: the package amqtt is not installed.
        """
        try:
            from amqtt.broker import Broker
        except ImportError as error:
            raise missing_package("amqtt", "demo", "the embedded broker") from error
        for name in ("amqtt", "transitions"):
            logging.getLogger(name).setLevel(logging.ERROR)
        self._broker = Broker(
            {
                "listeners": {"default": {"type": "tcp", "bind": f"127.0.0.1:{self.port}"}},
                "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
            }
        )
        await self._broker.start()
        return self

    async def until_subscribed(self, topic: str, *, limit_s: float = 30.0) -> None:
        """Wait for a subscriber: what is published before it comes would be lost.

        Raises:
            Unavailable: nobody subscribed within `limit_s`.
        """
        deadline = asyncio.get_running_loop().time() + limit_s
        while self._broker is None or not self._broker.subscriptions.get(topic):
            if asyncio.get_running_loop().time() > deadline:
                raise Unavailable(f"nobody subscribed to {topic!r} within {limit_s:.0f} s")
            await asyncio.sleep(0.02)

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Stop; a broker that hangs on a dead connection is left after two seconds."""
        if self._broker is not None:
            try:
                async with asyncio.timeout(2):
                    await self._broker.shutdown()
            except TimeoutError:
                logging.getLogger(__name__).debug("the broker did not stop in time")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
