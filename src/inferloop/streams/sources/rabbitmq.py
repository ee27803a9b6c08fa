"""Messages of a RabbitMQ queue, acknowledged by hand."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractIncomingMessage, AbstractQueue
from aio_pika.exceptions import AMQPError
from pydantic import Field, model_validator

from inferloop.core.errors import InferloopError, Unavailable
from inferloop.core.sample import Message
from inferloop.streams.contexts import SourceContext
from inferloop.streams.rabbitmq_access import RabbitConfig, connected, translated
from inferloop.streams.sources.pulled import PulledSource

_WAIT_S = 0.5


class _Token(NamedTuple):
    """One delivery: delivery tags count anew with every channel."""

    channel: int
    tag: int


class RabbitSource(PulledSource):
    """Several processes on one queue share its messages; what one held when it died comes to the others at once.

    The broker's own `consumer_timeout` (30 minutes) takes messages back from a pipeline whose sink is away for longer: they come
    again, and their decisions are found.
    """

    class Config(RabbitConfig):
        """The queue.

        Attributes:
            declare: make the queue, durable, if it is not there; otherwise it must be.
            exchange: bind the queue to this exchange, with `routing_keys`; needs `declare`.
            in_flight: messages that may wait for their acknowledgement: the prefetch count.
        """

        queue: str = Field(min_length=1)
        declare: bool = False
        exchange: str | None = Field(None, min_length=1)
        routing_keys: tuple[str, ...] = ("#",)
        in_flight: int = Field(1024, ge=1, le=65_535)

        @model_validator(mode="after")
        def _binds(self) -> RabbitSource.Config:
            if self.exchange is not None and not self.declare:
                raise ValueError("exchange needs declare: true")
            return self

    replayable = False

    def __init__(self, config: Config, context: SourceContext) -> None:
        super().__init__(context.name, config.url, in_flight=config.in_flight)
        self._config = config
        self._part = f"source {self._name!r}"
        self._connection: AbstractConnection | None = None
        self._channel: AbstractChannel | None = None
        self._number = 0
        self._incoming: asyncio.Queue[AbstractIncomingMessage] = asyncio.Queue()

    async def _connect(self) -> None:
        await self._disconnect()
        self._connection = await connected(self._config, self._part)
        with translated(self._part):
            self._channel = await self._connection.channel()
            await self._channel.set_qos(prefetch_count=self._config.in_flight)
            queue = await self._queue(self._channel)
            self._number += 1
            self._incoming = asyncio.Queue()
            await queue.consume(self._incoming.put)

    async def _queue(self, channel: AbstractChannel) -> AbstractQueue:
        if not self._config.declare:
            return await channel.get_queue(self._config.queue)
        queue = await channel.declare_queue(self._config.queue, durable=True)
        if self._config.exchange is not None:
            for key in self._config.routing_keys:
                await queue.bind(self._config.exchange, key)
        return queue

    async def _fetch(self, most: int) -> Sequence[Message]:
        if self._channel is None or self._channel.is_closed or self._connection is None or self._connection.is_closed:
            raise Unavailable(f"{self._part}: connection lost")
        found: list[AbstractIncomingMessage] = []
        if self._incoming.empty():
            with contextlib.suppress(TimeoutError):
                found.append(await asyncio.wait_for(self._incoming.get(), _WAIT_S))
        while len(found) < most and not self._incoming.empty():
            found.append(self._incoming.get_nowait())
        now = time.time()
        return [self._message(each, now) for each in found]

    def _message(self, each: AbstractIncomingMessage, now: float) -> Message:
        token = _Token(self._number, each.delivery_tag or 0)
        return Message(each.body, self._name, now, topic=each.routing_key or "", headers=_headers(each), token=token)

    async def _confirm(self, messages: Sequence[Message]) -> None:
        """One acknowledgement for all: they come in read order, so that everything before the last is done, too."""
        tags = [
            token.tag
            for token in (message.token for message in messages)
            if isinstance(token, _Token) and token.channel == self._number
        ]
        if not tags:
            return
        if self._channel is None or self._channel.is_closed:
            raise Unavailable(f"{self._part}: connection lost")
        with translated(self._part):
            await (await self._channel.get_underlay_channel()).basic_ack(tags[-1], multiple=True)

    async def _disconnect(self) -> None:
        """What is not acknowledged goes back into its place in the queue when the connection ends."""
        connection, self._connection, self._channel = self._connection, None, None
        if connection is not None:
            with contextlib.suppress(AMQPError, OSError, TimeoutError, RuntimeError, InferloopError):
                await connection.close()


def _headers(each: AbstractIncomingMessage) -> Mapping[str, str]:
    headers = {name: _text(value) for name, value in each.headers.items()}
    known = {"message-id": each.message_id, "content-type": each.content_type, "timestamp": each.timestamp}
    return {**headers, **{name: _text(value) for name, value in known.items() if value is not None}}


def _text(value: object) -> str:
    if isinstance(value, bytes | bytearray):
        return bytes(value).decode("utf-8", "replace")
    return value.isoformat() if isinstance(value, datetime) else str(value)
