"""What one paho client needs to know: address, session and subscriptions, as MQTT 5 or 3.1.1 has them."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import unquote, urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator

from inferloop.streams.addresses import checked_url

if TYPE_CHECKING:
    from paho.mqtt.client import Client

_CONNECT_TIMEOUT_S = 5.0
_NEVER_EXPIRES = 0xFFFFFFFF


class MqttConfig(BaseModel):
    """The broker, the topics and how much may be in flight.

    Attributes:
        url: `mqtt://[user:password@]host[:1883]`, or `mqtts://` for TLS.
        client_id: the name of the session at the broker; by default made of pipeline and source.
        in_flight: messages that may wait for their acknowledgement.
        protocol: `auto` speaks MQTT 5 and falls back to 3.1.1.
        keepalive_s: seconds without traffic after which the connection is checked.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str
    topics: tuple[str, ...] = Field(min_length=1)
    qos: Literal[0, 1] = 1
    client_id: str = ""
    in_flight: int = Field(256, ge=1, le=65_535)
    protocol: Literal["auto", "5", "3.1.1"] = "auto"
    username: str | None = None
    password: str | None = Field(None, repr=False)
    keepalive_s: int = Field(60, ge=1, le=65_535)

    @field_validator("protocol", mode="before")
    @classmethod
    def _as_text(cls, value: object) -> object:
        return str(value) if isinstance(value, int | float) else value

    @field_validator("url")
    @classmethod
    def _address(cls, value: str) -> str:
        return checked_url(value, "mqtt", "mqtts")

    @field_validator("topics")
    @classmethod
    def _filters(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for topic in value:
            levels = topic.split("/")
            bad = any("#" in level and (level != "#" or index < len(levels) - 1) for index, level in enumerate(levels))
            if not topic or bad or any("+" in level and level != "+" for level in levels):
                raise ValueError(f"{topic!r} is no topic filter: `#` stands alone at the end, `+` fills a whole level")
        return value


class Gate:
    """Bounds what is unacknowledged of one connection, also what the broker does not count, by holding up who reads."""

    def __init__(self, bound: int, patience_s: float) -> None:
        self._bound = bound
        self._patience_s = patience_s
        self._held = 0
        self._changed = threading.Condition()

    def enter(self) -> None:
        """Called on the paho thread: wait for room, at most as long as the broker needs no sign of life."""
        with self._changed:
            self._held += 1
            self._changed.wait_for(lambda: self._held <= self._bound, self._patience_s)

    def leave(self, count: int) -> None:
        """Called on the event loop."""
        with self._changed:
            self._held -= count
            self._changed.notify_all()


def new_client(config: MqttConfig, client_id: str, *, old: bool) -> Client:
    """A client that keeps its session, acknowledges by hand and leaves reconnecting to its owner.

    Args:
        config: of the source.
        client_id: the name of its session at the broker.
        old: speak MQTT 3.1.1.
    """
    from paho.mqtt import client as paho
    from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

    client = paho.Client(
        CallbackAPIVersion.VERSION2,
        client_id=client_id,
        clean_session=False if old else None,
        protocol=MQTTProtocolVersion.MQTTv311 if old else MQTTProtocolVersion.MQTTv5,
        reconnect_on_failure=False,
        manual_ack=True,
    )
    client.connect_timeout = _CONNECT_TIMEOUT_S
    authenticate(client, config.url, config.username, config.password)
    return client


def session(config: MqttConfig, *, old: bool) -> dict[str, Any]:
    """Keywords of `connect`: a session that stays, and how much may be in flight."""
    if old:
        return {}
    from paho.mqtt.packettypes import PacketTypes
    from paho.mqtt.properties import Properties

    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # paho declares no types here
    properties.SessionExpiryInterval = _NEVER_EXPIRES
    properties.ReceiveMaximum = config.in_flight
    return {"clean_start": False, "properties": properties}


def subscriptions(config: MqttConfig, *, old: bool) -> list[tuple[str, Any]]:
    """The topic filters; a retained message is wanted once, not at every reconnection."""
    if old:
        return [(topic, config.qos) for topic in config.topics]
    from paho.mqtt.subscribeoptions import SubscribeOptions

    keep_retained = SubscribeOptions.RETAIN_SEND_IF_NEW_SUB
    return [(topic, SubscribeOptions(qos=config.qos, retainHandling=keep_retained)) for topic in config.topics]


def authenticate(client: Client, address: str, username: str | None, password: str | None) -> None:
    """Tell a client user, password and whether to use TLS; what the address says may be percent-encoded."""
    url = urlsplit(address)
    username = username or (unquote(url.username) if url.username else None)
    password = password or (unquote(url.password) if url.password else None)
    if username is not None:
        client.username_pw_set(username, password)
    if url.scheme == "mqtts":
        client.tls_set()
