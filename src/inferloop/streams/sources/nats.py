"""Messages of a NATS JetStream stream, through a durable pull consumer."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import nats.errors
from nats.js.api import AckPolicy, ConsumerConfig
from nats.js.errors import NotFoundError
from pydantic import Field

from inferloop.core.errors import NotFound, Unavailable
from inferloop.core.sample import Message
from inferloop.data.config import Duration
from inferloop.streams.contexts import SourceContext
from inferloop.streams.nats_access import NatsConfig, connected, translated
from inferloop.streams.sources.pulled import PulledSource

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.aio.msg import Msg

_WAIT_S = 0.5
_SILENT_FETCHES = 20
_MOST_A_FETCH = 256


_NAK = b'-NAK {"delay": 500000000}'
"""Half a second, so that no request of ours is left by then: nats-server 2.9 forgets, until `ack_wait` is over, a message that
it wants to give to a request nobody listens for any more, and gives another one twice instead."""


class NatsSource(PulledSource):
    """Several processes with the same `durable` share the messages; what one held when it died comes after `ack_wait`."""

    class Config(NatsConfig):
        """The stream and the consumer.

        Attributes:
            subject: what to read; wildcards as NATS has them.
            stream: found by the subject when it is left out.
            durable: the name of the consumer; by default made of pipeline and source.
            ack_wait: the server gives a message to another process after so long without a sign of life; a message that is
                worked on gives one in time.
            in_flight: messages that may wait for their acknowledgement.
        """

        subject: str = Field(min_length=1)
        stream: str | None = None
        durable: str | None = Field(None, pattern=r"^[^\s.*>/\\]+$")
        ack_wait: Annotated[Duration, Field(ge=1)] = 30.0
        in_flight: int = Field(1024, ge=1, le=65_535)

    finishes_fetch = True

    def __init__(self, config: Config, context: SourceContext) -> None:
        super().__init__(context.name, config.url, in_flight=config.in_flight, keep_s=config.ack_wait / 3)
        self._config = config
        self._durable = config.durable or f"{context.pipeline}-{context.name}".replace(".", "_")
        self._client: Client | None = None
        self._subscription: Any = None
        self._epoch = ""
        self._silent = 0

    async def _connect(self) -> None:
        name = f"source {self._name!r}"
        self._client = await connected(self._config, f"{self._durable}")
        js = self._client.jetstream()
        with translated(name):
            try:
                stream = self._config.stream or await js.find_stream_name_by_subject(self._config.subject)
                info = await js.stream_info(stream)
            except NotFoundError as error:
                wanted = f"stream {self._config.stream!r}" if self._config.stream else f"stream for {self._config.subject!r}"
                raise NotFound(f"{name}: the server has no {wanted}", hint="nats stream add") from error
            await js.add_consumer(stream, self._consumer())
            self._subscription = await js.pull_subscribe_bind(consumer=self._durable, stream=stream)
        self._epoch = f"{stream}/{info.created.timestamp():.6f}" if info.created else stream
        self._silent = 0

    def _consumer(self) -> ConsumerConfig:
        return ConsumerConfig(
            durable_name=self._durable,
            ack_policy=AckPolicy.EXPLICIT,
            ack_wait=self._config.ack_wait,
            max_ack_pending=-1,  # each process bounds itself
            filter_subject=self._config.subject,
        )

    async def _fetch(self, most: int) -> Sequence[Message]:
        client = self._client
        if client is None or not client.is_connected:
            raise Unavailable(f"source {self._name!r}: not connected")
        try:
            with translated(f"source {self._name!r}"):
                found = await self._subscription.fetch(max(2, min(most, _MOST_A_FETCH)), timeout=_WAIT_S)
        except Unavailable as error:
            if not isinstance(error.__cause__, TimeoutError):
                raise
            await self._check_consumer()
            return []
        except NotFound as error:  # the consumer was deleted
            raise Unavailable(error.message) from error
        now = time.time()
        return [self._message(each, now) for each in found]

    async def _check_consumer(self) -> None:
        """A deleted consumer is as silent as one without messages; ask now and then."""
        self._silent += 1
        if self._silent % _SILENT_FETCHES == 0:
            try:
                with translated(f"source {self._name!r}"):
                    await self._subscription.consumer_info()
            except NotFound as error:
                raise Unavailable(error.message) from error

    def _message(self, msg: Msg, now: float) -> Message:
        position = f"{self._epoch}:{msg.metadata.sequence.stream}"
        return Message(
            msg.data, self._name, now, topic=msg.subject, position=position, headers=msg.headers or {}, token=msg.reply
        )

    async def _confirm(self, messages: Sequence[Message]) -> None:
        await self._answer(messages, b"+ACK")

    async def _keep(self, messages: Sequence[Message]) -> None:
        await self._answer(messages, b"+WPI")

    async def _give_back(self, messages: Sequence[Message]) -> None:
        await self._answer(messages, _NAK)

    async def _answer(self, messages: Sequence[Message], what: bytes) -> None:
        client = self._client
        if client is None or not client.is_connected:
            raise Unavailable(f"source {self._name!r}: not connected")
        with translated(f"source {self._name!r}"):
            for message in messages:
                await client.publish(str(message.token), what)

    async def _disconnect(self) -> None:
        client, self._client = self._client, None
        if client is None:
            return
        with contextlib.suppress(nats.errors.Error, TimeoutError, OSError, asyncio.CancelledError):
            if client.is_connected:
                await client.flush(2)
        with contextlib.suppress(nats.errors.Error, TimeoutError, OSError):
            await client.close()
