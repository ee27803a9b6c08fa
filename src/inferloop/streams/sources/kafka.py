"""Messages of Kafka topics, through a consumer group."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, NamedTuple, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka import Message as Record
from pydantic import Field

from inferloop.core.errors import NotFound, Unavailable
from inferloop.core.sample import Message
from inferloop.data.config import Duration
from inferloop.streams.contexts import SourceContext
from inferloop.streams.kafka_access import KafkaConfig, error_of
from inferloop.streams.sources.pulled import PulledSource

log = logging.getLogger(__name__)

T = TypeVar("T")
Partition = tuple[str, int]

_CONNECT_S = 5.0
_WAIT_S = 0.2
_MOST_A_FETCH = 1000
_COMMIT_MS = 50
"""Acknowledgements are collected and told to the brokers so often; after a kill what was acknowledged since then comes again."""
_KEEP_S = 30.0
"""A consumer that does not ask for five minutes is put out of its group; one that waits for a sink asks without taking."""


class _Token(NamedTuple):
    """One delivery: `turn` counts how often the partition was given to us."""

    partition: Partition
    offset: int
    turn: int


class KafkaSource(PulledSource):
    """Several processes in one `group` share the partitions; within one, messages come in order.

    The client has a thread of its own here. What was not acknowledged when a partition goes to another process comes there again.
    """

    class Config(KafkaConfig):
        """The topics and the group.

        Attributes:
            topics: names, or patterns that start with `^`.
            group: by default made of pipeline and source; a new one begins with the oldest message.
            session_timeout: a process that says nothing for so long loses its partitions.
            in_flight: messages that may wait for their acknowledgement.
        """

        topics: tuple[str, ...] = Field(min_length=1)
        group: str | None = Field(None, min_length=1)
        session_timeout: Annotated[Duration, Field(ge=6, le=1800)] = 45.0
        in_flight: int = Field(2048, ge=1, le=65_535)

    finishes_fetch = True
    caveat = (
        "a topic that is deleted and made again counts its offsets anew: give messages an id, or change the name of the source"
    )

    def __init__(self, config: Config, context: SourceContext) -> None:
        super().__init__(context.name, config.brokers, in_flight=config.in_flight, keep_s=_KEEP_S)
        self._config = config
        self._group = config.group or f"{context.pipeline}-{context.name}"
        self._thread: ThreadPoolExecutor | None = None
        self._consumer: Consumer | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._turns: dict[Partition, int] = {}
        self._turn = 0
        self._paused: list[TopicPartition] = []
        self._early: list[Record] = []
        self._done: dict[Partition, int] = {}
        self._lock = threading.Lock()

    async def _connect(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread = self._thread or ThreadPoolExecutor(1, thread_name_prefix=f"kafka-{self._name}")
        settings = {
            **self._config.client(),
            "group.id": self._group,
            "enable.auto.offset.store": False,
            "auto.commit.interval.ms": _COMMIT_MS,
            "auto.offset.reset": "earliest",
            "session.timeout.ms": int(self._config.session_timeout * 1000),
            "error_cb": lambda error: log.warning("kafka", extra={"source": self._name, "reason": error.str()}),
        }
        try:
            self._consumer = Consumer(settings, logger=log)
        except KafkaException as error:
            raise error_of(f"source {self._name!r}", error) from error
        await self._on_thread(self._subscribe)

    def _subscribe(self, consumer: Consumer) -> None:
        known = consumer.list_topics(timeout=_CONNECT_S).topics
        missing = [topic for topic in self._config.topics if not topic.startswith("^") and topic not in known]
        if missing:
            raise NotFound(f"source {self._name!r}: the brokers have no topic {', '.join(missing)}", hint="create it first")
        consumer.subscribe(
            list(self._config.topics), on_assign=self._on_assigned, on_revoke=self._on_revoked, on_lost=self._on_revoked
        )

    def _on_assigned(self, _consumer: Consumer, partitions: Sequence[TopicPartition]) -> None:
        for each in partitions:
            self._turn += 1
            self._turns[each.topic, each.partition] = self._turn
        log.info("partitions assigned", extra={"source": self._name, "partitions": len(partitions)})

    def _on_revoked(self, consumer: Consumer, partitions: Sequence[TopicPartition]) -> None:
        """From here on another process answers for them; what we hold of them is not ours to acknowledge."""
        with contextlib.suppress(KafkaException):  # they were lost already
            self._store_offsets(consumer)
        for each in partitions:
            self._turns.pop((each.topic, each.partition), None)
        log.info("partitions revoked", extra={"source": self._name, "partitions": len(partitions)})
        if self._loop is not None and not self._closing:
            self._loop.call_soon_threadsafe(self._forget_others)

    def _forget_others(self) -> None:
        """Drop what belongs to another process by now."""
        self._held = {
            token: message for token, message in self._held.items() if isinstance(token, _Token) and self._is_ours(token)
        }
        left = [message for message in self._arrived if isinstance(message.token, _Token) and self._is_ours(message.token)]
        self._arrived.clear()
        self._arrived.extend(left)
        self._has_room.set()

    def _is_ours(self, token: _Token) -> bool:
        return self._turns.get(token.partition) == token.turn

    async def _fetch(self, most: int) -> Sequence[Message]:
        records = await self._on_thread(lambda consumer: self._consume(consumer, min(most, _MOST_A_FETCH)))
        now = time.time()
        return [self._message(record, now) for record in records]

    def _consume(self, consumer: Consumer, most: int) -> list[Record]:
        self._store_offsets(consumer)
        if self._paused:
            consumer.resume([each for each in self._paused if (each.topic, each.partition) in self._turns])
            self._paused = []
        early, self._early = self._early, []
        return self._sound(early + consumer.consume(most, _WAIT_S))

    def _sound(self, records: Sequence[Record]) -> list[Record]:
        """Those that are messages; an error that only a new connection heals is raised."""
        sound = []
        for record in records:
            error: KafkaError | None = record.error()
            if error is None:
                sound.append(record)
            elif error.fatal():
                raise Unavailable(f"source {self._name!r}: {error.str()}")
            else:
                log.warning("kafka", extra={"source": self._name, "reason": error.str()})
        return sound

    def _message(self, record: Record, now: float) -> Message:
        topic, number, offset = str(record.topic()), int(record.partition() or 0), int(record.offset() or 0)
        pairs: Sequence[tuple[str, str | bytes | None]] = record.headers() or ()  # type: ignore[assignment]
        headers = {name: _text(value) for name, value in pairs}
        if (key := record.key()) is not None:
            headers["kafka-key"] = _text(key)
        token = _Token((topic, number), offset, self._turns.get((topic, number), 0))
        value = record.value() or b""
        payload = value.encode() if isinstance(value, str) else value
        return Message(payload, self._name, now, topic=topic, position=f"{number}:{offset}", headers=headers, token=token)

    async def _confirm(self, messages: Sequence[Message]) -> None:
        """Note how far each partition is done; the client's thread tells it, for while it waits for messages it waits for all."""
        with self._lock:
            for message in messages:
                token = message.token
                if isinstance(token, _Token) and self._is_ours(token):
                    self._done[token.partition] = max(self._done.get(token.partition, 0), token.offset + 1)

    def _store_offsets(self, consumer: Consumer) -> None:
        with self._lock:
            done, self._done = self._done, {}
        if done:
            consumer.store_offsets(offsets=[TopicPartition(*partition, offset) for partition, offset in done.items()])

    async def _keep(self, messages: Sequence[Message]) -> None:  # noqa: ARG002  # the whole partition is kept
        if not self._has_room.is_set():
            await self._on_thread(self._show_life)

    def _show_life(self, consumer: Consumer) -> None:
        self._store_offsets(consumer)
        self._paused = consumer.assignment()
        consumer.pause(self._paused)
        record = consumer.poll(0)
        if record is not None:
            self._early.append(record)

    async def _disconnect(self) -> None:
        consumer, thread = self._consumer, self._thread
        if consumer is not None and thread is not None:
            try:
                await self._on_thread(self._store_offsets)
            except Unavailable as error:
                log.debug("kafka", extra={"source": self._name, "reason": error.message})
            try:
                await asyncio.get_running_loop().run_in_executor(thread, consumer.close)
            except (KafkaException, RuntimeError) as error:
                log.debug("kafka", extra={"source": self._name, "reason": str(error)})
        self._consumer = None
        self._turns.clear()
        self._early.clear()
        self._done.clear()
        if thread is not None and self._closing:
            self._thread = None
            thread.shutdown()

    async def _on_thread(self, work: Callable[[Consumer], T]) -> T:
        consumer, thread = self._consumer, self._thread
        if consumer is None or thread is None:
            raise Unavailable(f"source {self._name!r}: not connected")
        try:
            return await asyncio.get_running_loop().run_in_executor(thread, work, consumer)
        except (KafkaException, RuntimeError) as error:
            if isinstance(error, KafkaException):
                raise Unavailable(error_of(f"source {self._name!r}", error).message) from error
            raise Unavailable(f"source {self._name!r}: {error}") from error


def _text(value: str | bytes | None) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value or ""
