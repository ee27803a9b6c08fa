"""A message to an exchange of RabbitMQ, confirmed by the broker."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Annotated, Any

import aio_pika
import msgspec
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractExchange
from aio_pika.exceptions import AMQPError
from pydantic import Field

from inferloop.core.errors import InvalidInput, Unavailable
from inferloop.core.protocols import Delivery, Sink
from inferloop.data.config import Duration
from inferloop.streams.addresses import Address
from inferloop.streams.contexts import SinkContext
from inferloop.streams.delivery.reaching import reached
from inferloop.streams.rabbitmq_access import RabbitConfig, connected, translated


class RabbitSink(Sink):
    """Publishes a batch in order, then waits until the broker has confirmed all of it.

    The key is the message's id; the broker drops no repetition by it, a consumer can. What no queue is bound for is refused.
    """

    class Config(RabbitConfig):
        """Where to and what.

        Attributes:
            exchange: must be there; the default exchange when it is left out, which leads to the queue named `routing_key`.
            routing_key: may hold `{name}` for an entry of the payload.
            json: the message; a text that starts with `=` is an expression. Without it: identity, decision and fields.
            persistent: the broker keeps it on disk.
            expires: the broker drops the message when nobody got it for so long.
            timeout: of one batch, in seconds.
        """

        exchange: str = ""
        routing_key: Address
        body: Any = Field(None, alias="json")
        persistent: bool = True
        expires: Annotated[Duration, Field(gt=0)] | None = None
        timeout: Annotated[Duration, Field(gt=0)] = 10.0

    payload_key = "json"
    idempotent = False
    batched = True

    def __init__(self, config: Config, context: SinkContext) -> None:
        self._config = config
        self._part = f"sink {context.name!r}"
        self._connection: AbstractConnection | None = None
        self._channel: AbstractChannel | None = None
        self._exchange: AbstractExchange | None = None

    async def open(self) -> None:
        """See `Sink.open`."""
        try:
            await reached(self._connect, part=self._part, url=self._config.url)
        except BaseException:
            await self.close()
            raise

    async def send(self, deliveries: Sequence[Delivery]) -> None:
        """See `Sink.send`."""
        if self._channel is None or self._channel.is_closed or self._connection is None or self._connection.is_closed:
            await self._connect()
        exchange = self._exchange
        if exchange is None:
            raise Unavailable(f"{self._part} is closed")
        tries = await asyncio.gather(*(self._publish(exchange, delivery) for delivery in deliveries), return_exceptions=True)
        failures = [result for result in tries if isinstance(result, BaseException)]
        for failure in sorted(failures, key=lambda failure: isinstance(failure, InvalidInput)):  # what may pass later first
            raise failure

    async def close(self) -> None:
        """See `Sink.close`."""
        connection, self._connection, self._channel, self._exchange = self._connection, None, None, None
        if connection is not None:
            with contextlib.suppress(AMQPError, OSError, TimeoutError, RuntimeError):
                await connection.close()

    async def _connect(self) -> None:
        await self.close()
        self._connection = await connected(self._config, self._part)
        with translated(self._part):
            self._channel = await self._connection.channel(publisher_confirms=True, on_return_raises=True)
            name = self._config.exchange
            self._exchange = await self._channel.get_exchange(name) if name else self._channel.default_exchange

    async def _publish(self, exchange: AbstractExchange, delivery: Delivery) -> None:
        message = aio_pika.Message(
            msgspec.json.encode(delivery.payload),
            content_type="application/json",
            message_id=delivery.key,
            headers={"idempotency-key": delivery.key},
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT if self._config.persistent else aio_pika.DeliveryMode.NOT_PERSISTENT,
            expiration=self._config.expires,
        )
        routing_key = self._config.routing_key.filled(delivery.payload)
        with translated(self._part):
            await exchange.publish(message, routing_key, mandatory=True, timeout=self._config.timeout)
