"""A message into a NATS JetStream stream, with the idempotency key as `Nats-Msg-Id`."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import nats.errors
from pydantic import Field

from inferloop.core.errors import InvalidInput, Unavailable
from inferloop.core.protocols import Delivery, Sink
from inferloop.data.config import Duration
from inferloop.streams.addresses import Address
from inferloop.streams.contexts import SinkContext
from inferloop.streams.delivery.reaching import reached
from inferloop.streams.nats_access import NatsConfig, connected, translated

if TYPE_CHECKING:
    from nats.aio.client import Client


class NatsSink(Sink):
    """Publishes a batch, then waits until the stream has stored all of it."""

    class Config(NatsConfig):
        """Where to and what.

        Attributes:
            subject: may hold `{name}` for an entry of the payload.
            stream: refuse what another stream would store.
            json: the message; a text that starts with `=` is an expression. Without it: identity, decision and fields.
            timeout: of one batch, in seconds.
        """

        subject: Address
        stream: str | None = None
        body: Any = Field(None, alias="json")
        timeout: Annotated[Duration, Field(gt=0)] = 10.0

    payload_key = "json"
    idempotent = True
    batched = True
    caveat = "the stream forgets a key after its duplicate window (2 minutes by default); an outage may last longer"

    def __init__(self, config: Config, context: SinkContext) -> None:
        self._config = config
        self._name = context.name
        self._client: Client | None = None

    async def open(self) -> None:
        """See `Sink.open`."""
        await reached(self._connect, part=f"sink {self._name}", url=self._config.url)

    async def send(self, deliveries: Sequence[Delivery]) -> None:
        """See `Sink.send`."""
        if self._client is None or not self._client.is_connected:
            await self.close()
            await self._connect()
        client = self._client
        if client is None:
            raise Unavailable(f"sink {self._name!r} is closed")
        stream = client.jetstream(timeout=self._config.timeout)
        tries = await asyncio.gather(*(self._publish(stream, delivery) for delivery in deliveries), return_exceptions=True)
        failures = [result for result in tries if isinstance(result, BaseException)]
        for failure in sorted(failures, key=lambda failure: isinstance(failure, InvalidInput)):
            raise failure

    async def close(self) -> None:
        """See `Sink.close`."""
        client, self._client = self._client, None
        if client is not None:
            with contextlib.suppress(nats.errors.Error, TimeoutError, OSError):
                await client.close()

    async def _connect(self) -> None:
        self._client = await connected(self._config, f"sink {self._name}")

    async def _publish(self, stream: Any, delivery: Delivery) -> None:
        subject = self._config.subject.filled(delivery.payload)
        body = msgspec.json.encode(delivery.payload)
        with translated(f"sink {self._name!r}"):
            await stream.publish(subject, body, stream=self._config.stream, headers={"Nats-Msg-Id": delivery.key})
