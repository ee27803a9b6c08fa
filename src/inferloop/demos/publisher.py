"""The shop: publishes messages to the broker at a steady rate, with QoS 1, some of them twice, as real senders do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from inferloop.core.errors import Unavailable

_CONFIRM_S = 30.0
_POLL_S = 0.01


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One message on its way.

    Attributes:
        times: how often it is sent; a second time with the same id stands for a sender that did not see the confirmation.
    """

    topic: str
    payload: bytes
    times: int = 1


class Publisher:
    """`async with Publisher(url) as shop: await shop.send(messages, rate=200)`."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 1883
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="inferloop-demo-shop", protocol=mqtt.MQTTv311)
        self._client.max_inflight_messages_set(200)
        self._client.max_queued_messages_set(0)
        self.published = 0

    async def __aenter__(self) -> Self:
        """Connect."""
        await asyncio.to_thread(self._client.connect, self._host, self._port, 30)
        self._client.loop_start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Disconnect."""
        self._client.disconnect()
        await asyncio.to_thread(self._client.loop_stop)

    async def send(self, messages: Iterable[Outgoing], *, rate: float, has_room: Callable[[], bool] = lambda: True) -> int:
        """Publish all and wait until the broker confirmed every one.

        Args:
            messages: in the order in which they are sent.
            rate: messages a second, at most.
            has_room: asked before each message; while it is false the shop waits, as one does whose customers wait.

        Returns:
            How many were published, repetitions included.

        Raises:
            Unavailable: the broker did not confirm within 30 s of the last one.
        """
        loop = asyncio.get_running_loop()
        due, sent = loop.time(), []
        for message in messages:
            for _ in range(message.times):
                while not has_room():
                    await asyncio.sleep(_POLL_S)
                    due = loop.time()
                sent.append(self._client.publish(message.topic, message.payload, qos=1))
                self.published += 1
                due += 1 / rate
                await asyncio.sleep(max(0.0, due - loop.time()))
        deadline = loop.time() + _CONFIRM_S
        while not all(info.is_published() for info in sent):
            if loop.time() > deadline:
                raise Unavailable(f"the broker at {self._host}:{self._port} did not confirm {len(sent)} messages")
            await asyncio.sleep(_POLL_S)
        return len(sent)
