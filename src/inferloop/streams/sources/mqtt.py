"""Topics of an MQTT broker over paho, acknowledged by hand after the sinks confirmed.

paho runs its network in a thread of its own and hands messages over with one wake-up a burst:

    broker -> paho thread -> deque -> read()          ack() -> paho's out queue -> broker

MQTT 5 bounds what is in flight by its receive maximum, except for messages of QoS 0; MQTT 3.1.1 has no such thing. There the
paho thread stops reading at the bound, and only lets a message through now and then so that it can write acknowledgements
and pings.
"""

from __future__ import annotations

import asyncio
import logging
import random
import socket
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from inferloop.core.protocols import Source
from inferloop.core.sample import Message
from inferloop.streams.contexts import SourceContext
from inferloop.streams.delivery.reaching import without_secrets
from inferloop.streams.sources.mqtt_session import Gate, MqttConfig, new_client, session, subscriptions

if TYPE_CHECKING:
    from paho.mqtt.client import Client

log = logging.getLogger(__name__)

_BACKOFF_S = (0.1, 5.0)
_PATIENCE_S = (1.5, 12.0)
_GOODBYE_S = 1.0
_TICK_S = 0.005
_OPEN_GATE = 1 << 30
_UNSUPPORTED = "Unsupported protocol version"


@dataclass(frozen=True, slots=True)
class _Token:
    """What acknowledges a message: the connection that it came over, and its packet id there."""

    connection: int
    packet: int
    qos: int


class MqttSource(Source):
    """One connection with a persistent session; reconnects for ever until it is closed."""

    Config = MqttConfig

    ordered = True
    replayable = False

    def __init__(self, config: MqttConfig, context: SourceContext) -> None:
        self.durable = config.qos == 1
        self._config = config
        self._name = context.name
        self._client_id = config.client_id or f"{context.pipeline}-{context.name}"
        self._old_protocol = config.protocol == "3.1.1"
        self._refused = 0
        self._connection = 0
        self._client: Client | None = None
        self._gate: Gate | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._arrived: deque[Message] = deque()
        self._awake = False
        self._readable = asyncio.Event()
        self._connected = asyncio.Event()
        self._lost = asyncio.Event()
        self._answered = asyncio.Event()
        self._supervisor: asyncio.Task[None] | None = None
        self._failure: BaseException | None = None

    @property
    def in_flight(self) -> int:
        """Messages that may be unacknowledged at a time."""
        return self._config.in_flight

    @property
    def caveat(self) -> str:
        """What `pipeline check` says of it beside the guarantee."""
        if not self.durable:
            return "qos 0, the broker forgets a message when it has sent it"
        return "only as durable as the broker: an MQTT broker may lose what it confirmed when it is killed"

    async def open(self) -> None:
        """See `Source.open`."""
        self._loop = asyncio.get_running_loop()
        self._supervisor = asyncio.create_task(self._supervise(), name=f"mqtt-{self._name}")
        self._supervisor.add_done_callback(self._on_supervisor_ended)
        try:
            await self._connected.wait()
            self._raise_failure()
        except asyncio.CancelledError:
            await self.close()
            raise

    async def read(self) -> Sequence[Message]:
        """See `Source.read`."""
        messages: list[Message] = []
        while not messages:
            await self._readable.wait()
            self._raise_failure()
            self._readable.clear()
            self._awake = False  # before taking: what arrives from here on wakes us again
            while self._arrived:
                messages.append(self._arrived.popleft())
        return messages

    async def ack(self, messages: Sequence[Message]) -> None:
        """See `Source.ack`. What came over an earlier connection comes again and is acknowledged then."""
        client, gate, current = self._client, self._gate, self._connection
        tokens = [message.token for message in messages if isinstance(message.token, _Token)]
        valid = [token for token in tokens if token.connection == current]
        if client is None:
            return
        for token in valid:
            if token.qos:
                client.ack(token.packet, token.qos)
        if gate is not None:
            gate.leave(len(valid))

    async def close(self) -> None:
        """See `Source.close`."""
        supervisor, self._supervisor = self._supervisor, None
        if supervisor is None:
            return
        supervisor.cancel()
        await asyncio.gather(supervisor, return_exceptions=True)
        await self._hang_up()

    def _on_supervisor_ended(self, supervisor: asyncio.Task[None]) -> None:
        """Wake whoever waits, so that a defect here does not look like silence of the broker."""
        if not supervisor.cancelled():
            self._failure = supervisor.exception()
            self._connected.set()
            self._readable.set()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    async def _supervise(self) -> None:
        """Connect, wait until the connection is lost, connect again."""
        attempt = 0
        while True:
            self._lost.clear()
            self._connected.clear()
            self._answered.clear()
            reason = await self._connect()
            if not reason and await self._is_answered(attempt):
                await self._lost.wait()
            reason = reason or ("connection lost" if self._connected.is_set() else "refused")
            attempt = 0 if self._connected.is_set() else attempt + 1
            self._connected.clear()
            await self._hang_up()
            delay_s = random.uniform(*_BACKOFF_S) if attempt > 5 else _BACKOFF_S[0] * 2**attempt * random.uniform(0.5, 1.0)
            facts = {"source": self._name, "url": without_secrets(self._config.url), "reason": reason, "retry_s": delay_s}
            log.warning("broker not there", extra=facts)
            await asyncio.sleep(delay_s)

    async def _is_answered(self, attempt: int) -> bool:
        """Whether the broker says yes or no in time; one that says nothing may not understand MQTT 5."""
        try:
            async with asyncio.timeout(min(_PATIENCE_S[0] * 2**attempt, _PATIENCE_S[1])):
                await self._answered.wait()
        except TimeoutError:
            self._switch_protocol()
            return False
        return True

    async def _connect(self) -> str:
        """Start one connection; returns why the network refused it, or nothing."""
        url = urlsplit(self._config.url)
        self._connection += 1
        client = new_client(self._config, self._client_id, old=self._old_protocol)
        self._gate = Gate(self._config.in_flight, self._config.keepalive_s / 4)
        self._listen(client, self._connection, self._gate)
        port = url.port or (8883 if url.scheme == "mqtts" else 1883)
        try:
            await asyncio.to_thread(
                client.connect,
                url.hostname or "",
                port,
                self._config.keepalive_s,
                **session(self._config, old=self._old_protocol),
            )
        except (OSError, ValueError) as error:
            return str(error)
        self._client = client
        client.loop_start()
        return ""

    async def _hang_up(self) -> None:
        """Disconnect after what is queued was written, and wait for the paho thread."""
        client, self._client = self._client, None
        gate, self._gate = self._gate, None
        if client is None:
            return
        if gate is not None:
            gate.leave(_OPEN_GATE)
        if self._connected.is_set():
            await self._say_goodbye(client)
        self._connection += 1  # what it says from here on counts no more
        client.disconnect()
        await asyncio.to_thread(client.loop_stop)

    async def _say_goodbye(self, client: Client) -> None:
        """End our side and read on until the broker ends its own.

        paho closes with whatever the broker is sending still unread; the network answers that with a reset, which takes
        acknowledgements along that the broker has not read yet.
        """
        try:
            async with asyncio.timeout(_GOODBYE_S):
                while client.want_write():  # noqa: ASYNC110  # paho has no event for it
                    await asyncio.sleep(_TICK_S)
                await asyncio.sleep(_TICK_S)  # the packet that paho has in hand
                connection = client.socket()
                if isinstance(connection, socket.socket) and not self._lost.is_set():
                    socket.socket.shutdown(connection, socket.SHUT_WR)  # TLS stays readable, unlike with its own shutdown
                    await self._lost.wait()
        except (OSError, TimeoutError):
            log.debug("broker did not hang up", extra={"source": self._name})

    def _listen(self, client: Client, connection: int, gate: Gate) -> None:
        """Set the callbacks; all of them run on the paho thread.

        It counts as connected once the broker keeps what comes for us: it says so, knew us, or sends already.
        """
        told: list[bool] = []

        def subscribed(session_present: bool = False) -> None:
            if not told:
                told.append(True)
                self._tell(self._on_connected, connection, session_present)

        def on_connect(client: Client, _data: Any, flags: Any, reason: Any, _properties: Any) -> None:
            if reason.is_failure:
                self._tell(self._on_refused, connection, str(reason))
                return
            client.subscribe(subscriptions(self._config, old=self._old_protocol))
            if flags.session_present:
                subscribed(session_present=True)

        def on_disconnect(*_: Any) -> None:
            self._tell(self._on_lost, connection)

        def on_message(_client: Client, _data: Any, packet: Any) -> None:
            subscribed()
            topic = _topic(packet)
            token = _Token(connection, packet.mid, packet.qos)
            self._arrived.append(Message(packet.payload, self._name, time.time(), topic=topic, token=token))
            if not self._awake:
                self._awake = True
                self._tell(self._readable.set)
            gate.enter()

        client.on_connect = on_connect
        client.on_subscribe = lambda *_: subscribed()
        client.on_disconnect = on_disconnect
        client.on_message = on_message

    def _tell(self, callback: Any, *arguments: Any) -> None:
        """Call something on the event loop from the paho thread."""
        try:
            if self._loop is not None:
                self._loop.call_soon_threadsafe(callback, *arguments)
        except RuntimeError:
            log.debug("loop is closed", extra={"source": self._name})

    def _on_connected(self, connection: int, session_present: bool) -> None:
        if connection != self._connection:
            return
        self._refused = 0
        self._connected.set()
        self._answered.set()
        protocol = "3.1.1" if self._old_protocol else "5"
        log.info("broker connected", extra={"source": self._name, "protocol": protocol, "session_present": session_present})

    def _on_refused(self, connection: int, reason: str) -> None:
        if connection != self._connection:
            return
        log.warning("broker refused the connection", extra={"source": self._name, "reason": reason})
        if _UNSUPPORTED.lower() in reason.lower():
            self._switch_protocol()
        self._lost.set()
        self._answered.set()

    def _on_lost(self, connection: int) -> None:
        if connection != self._connection or self._lost.is_set():
            return
        if not self._connected.is_set():
            self._refused += 1
            if self._refused >= 2:  # it closes without a word, as 3.1.1 brokers do with what they do not understand
                self._switch_protocol()
        self._lost.set()
        self._answered.set()

    def _switch_protocol(self) -> None:
        if self._config.protocol == "auto":
            self._old_protocol = not self._old_protocol
            self._refused = 0


def _topic(packet: Any) -> str:
    """The topic of a paho message; one that is no UTF-8 with replacement characters."""
    try:
        return str(packet.topic)
    except UnicodeDecodeError:
        return "not-utf8"
