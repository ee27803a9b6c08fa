"""A message to a topic of an MQTT broker, confirmed by the broker at QoS 1."""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import urlsplit

import msgspec
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from inferloop.core.errors import InvalidInput, Unavailable
from inferloop.core.protocols import Delivery, Sink
from inferloop.data.config import Duration
from inferloop.streams.addresses import Address, checked_url
from inferloop.streams.contexts import SinkContext
from inferloop.streams.delivery.reaching import reached
from inferloop.streams.sources.mqtt_session import authenticate

if TYPE_CHECKING:
    from paho.mqtt.client import Client

_CONNECT_S = 5.0
_REFUSED_FOR_GOOD = frozenset({0x87, 0x90, 0x95, 0x99})
"""Reasons in PUBACK (MQTT 5, 3.4.2.1): not authorized, topic name invalid, packet too large, payload format invalid."""
_FAILED = 0x80


class MqttSink(Sink):
    """Publishes a batch in order, then waits until the broker has confirmed all of it.

    The key goes along as the user property `idempotency-key`; no broker drops a repetition by it, a subscriber can.
    """

    class Config(BaseModel):
        """Where to and what.

        Attributes:
            url: `mqtt://[user:password@]host[:1883]`, or `mqtts://` for TLS.
            topic: may hold `{name}` for an entry of the payload.
            json: the message; a text that starts with `=` is an expression. Without it: identity, decision and fields.
            retain: the broker keeps the last message of the topic for subscribers to come.
            expires: the broker drops the message when nobody got it for so long; MQTT 5 only, whole seconds, at least 1.
            timeout: of one batch, in seconds.
        """

        model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

        url: str = Field(repr=False)
        topic: Address
        body: Any = Field(None, alias="json")
        qos: Literal[0, 1] = 1
        retain: bool = False
        expires: Annotated[Duration, Field(ge=1)] | None = None
        protocol: Literal["5", "3.1.1"] = "5"
        client_id: str = ""
        username: str | None = None
        password: str | None = Field(None, repr=False)
        timeout: Annotated[Duration, Field(gt=0)] = 10.0

        @field_validator("protocol", mode="before")
        @classmethod
        def _as_text(cls, value: object) -> object:
            return str(value) if isinstance(value, int | float) else value

        @field_validator("url")
        @classmethod
        def _address(cls, value: str) -> str:
            return checked_url(value, "mqtt", "mqtts")

        @model_validator(mode="after")
        def _expiry(self) -> MqttSink.Config:
            if self.expires is not None and self.protocol == "3.1.1":
                raise ValueError("expires needs MQTT 5, protocol is 3.1.1")
            return self

    payload_key = "json"
    idempotent = False
    batched = True

    def __init__(self, config: Config, context: SinkContext) -> None:
        self._config = config
        self._name = context.name
        self._client_id = config.client_id or f"{context.pipeline}-{context.name}-out"
        self._client: Client | None = None
        self._waiting: dict[int, asyncio.Future[int]] = {}
        self._early: dict[int, int] = {}
        self._lock = threading.Lock()

    @property
    def caveat(self) -> str:
        """What `pipeline check` says of it beside the guarantee."""
        return "" if self._config.qos else "qos 0, nobody confirms a message"

    async def open(self) -> None:
        """See `Sink.open`."""
        await reached(self._connect, part=f"sink {self._name}", url=self._config.url)

    async def send(self, deliveries: Sequence[Delivery]) -> None:
        """See `Sink.send`."""
        messages = [
            (self._config.topic.filled(each.payload), msgspec.json.encode(each.payload), self._properties(each.key))
            for each in deliveries
        ]
        if self._client is None or not self._client.is_connected():
            await self.close()
            await self._connect()
        try:
            async with asyncio.timeout(self._config.timeout):
                codes = await asyncio.gather(*[self._published(*message) for message in messages])
        except TimeoutError as error:
            await self.close()
            raise Unavailable(f"sink {self._name!r}: the broker did not confirm in {self._config.timeout:g} s") from error
        for code in sorted(codes, key=_REFUSED_FOR_GOOD.__contains__):  # what may pass later first
            if code >= _FAILED:
                kind = InvalidInput if code in _REFUSED_FOR_GOOD else Unavailable
                raise kind(f"sink {self._name!r}: the broker refused a message with reason code 0x{code:02x}")

    async def close(self) -> None:
        """See `Sink.close`."""
        client, self._client = self._client, None
        if client is None:
            return
        client.disconnect()
        await asyncio.to_thread(client.loop_stop)
        with self._lock:
            self._waiting.clear()
            self._early.clear()

    def _published(self, topic: str, body: bytes, properties: Any) -> asyncio.Future[int]:
        """Hand one over; the future is the reason code of the broker's answer."""
        client, loop = self._client, asyncio.get_running_loop()
        confirmed: asyncio.Future[int] = loop.create_future()
        if client is None:
            raise Unavailable(f"sink {self._name!r} is closed")
        try:
            info = client.publish(topic, body, self._config.qos, self._config.retain, properties)
        except ValueError as error:
            raise InvalidInput(f"sink {self._name!r}: {error}") from error
        with self._lock:  # the answer may have been faster
            code = self._early.pop(info.mid, None)
            if code is None:
                self._waiting[info.mid] = confirmed
        if code is not None:
            confirmed.set_result(code)
        return confirmed

    async def _connect(self) -> None:
        loop, answered = asyncio.get_running_loop(), asyncio.Event()
        said: list[str] = []
        client = self._new_client(loop)

        def on_connect(_client: Any, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
            said.append(str(reason) if reason.is_failure else "")
            _call(loop, answered.set)

        client.on_connect = on_connect
        url = urlsplit(self._config.url)
        port = url.port or (8883 if url.scheme == "mqtts" else 1883)
        self._client = client
        try:
            await asyncio.to_thread(client.connect, url.hostname or "", port)
            client.loop_start()
            async with asyncio.timeout(_CONNECT_S):
                await answered.wait()
        except (OSError, ValueError, TimeoutError) as error:
            await self.close()
            raise Unavailable(f"sink {self._name!r}: {str(error) or 'the broker does not answer'}") from error
        if said[0]:
            await self.close()
            raise Unavailable(f"sink {self._name!r}: the broker refused the connection: {said[0]}")

    def _new_client(self, loop: asyncio.AbstractEventLoop) -> Client:
        from paho.mqtt import client as paho
        from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

        old = self._config.protocol == "3.1.1"
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=self._client_id,
            protocol=MQTTProtocolVersion.MQTTv311 if old else MQTTProtocolVersion.MQTTv5,
            reconnect_on_failure=False,
        )
        client.connect_timeout = _CONNECT_S
        authenticate(client, self._config.url, self._config.username, self._config.password)

        def on_publish(_client: Any, _data: Any, mid: int, reason: Any, _properties: Any) -> None:
            with self._lock:
                confirmed = self._waiting.pop(mid, None)
                if confirmed is None:
                    self._early[mid] = reason.value
            if confirmed is not None:
                _call(loop, _settle, confirmed, reason.value)

        client.on_publish = on_publish
        return client

    def _properties(self, key: str) -> Any:
        if self._config.protocol == "3.1.1":
            return None
        from paho.mqtt.packettypes import PacketTypes
        from paho.mqtt.properties import Properties

        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]  # paho declares no types here
        properties.ContentType = "application/json"
        properties.UserProperty = ("idempotency-key", key)
        if self._config.expires is not None:
            properties.MessageExpiryInterval = math.ceil(self._config.expires)
        return properties


def _settle(confirmed: asyncio.Future[int], code: int) -> None:
    if not confirmed.done():
        confirmed.set_result(code)


def _call(loop: asyncio.AbstractEventLoop, callback: Any, *arguments: Any) -> None:
    """Call something on the event loop from the paho thread."""
    with contextlib.suppress(RuntimeError):  # the loop is closed
        loop.call_soon_threadsafe(callback, *arguments)
