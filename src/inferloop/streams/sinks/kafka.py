"""A message to a Kafka topic, confirmed by all replicas in sync."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any

import msgspec
from confluent_kafka import KafkaError, KafkaException, Producer
from pydantic import Field

from inferloop.core.errors import InferloopError, InvalidInput, Unavailable
from inferloop.core.protocols import Delivery, Sink
from inferloop.data.config import Duration
from inferloop.streams.addresses import Address
from inferloop.streams.contexts import SinkContext
from inferloop.streams.delivery.reaching import reached
from inferloop.streams.kafka_access import KafkaConfig, error_of

log = logging.getLogger(__name__)

_CONNECT_S = 5.0


class KafkaSink(Sink):
    """Produces a batch in order, then waits until the brokers have confirmed all of it.

    The key goes along as the header `idempotency-key`; the brokers drop no repetition by it, a consumer can.
    """

    class Config(KafkaConfig):
        """Where to and what.

        Attributes:
            topic: may hold `{name}` for an entry of the payload.
            partition_by: the entry of the payload whose value becomes the record's key; equal keys stay in order.
            json: the record; a text that starts with `=` is an expression. Without it: identity, decision and fields.
            timeout: of one batch, in seconds.
        """

        topic: Address
        partition_by: str = "key"
        body: Any = Field(None, alias="json")
        timeout: Annotated[Duration, Field(ge=1)] = 10.0

    payload_key = "json"
    idempotent = False
    batched = True

    def __init__(self, config: Config, context: SinkContext) -> None:
        self._config = config
        self._name = context.name
        self._thread: ThreadPoolExecutor | None = None
        self._producer: Producer | None = None

    async def open(self) -> None:
        """See `Sink.open`."""
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"kafka-{self._name}")
        try:
            await reached(self._connect, part=f"sink {self._name}", url=f"kafka://{self._config.brokers.partition(',')[0]}")
        except BaseException:
            await self.close()
            raise

    async def send(self, deliveries: Sequence[Delivery]) -> None:
        """See `Sink.send`."""
        if self._producer is None:
            await self._connect()
        records = [self._record(delivery) for delivery in deliveries]
        await self._on_thread(lambda: self._produce(records))

    async def close(self) -> None:
        """See `Sink.close`."""
        thread, self._thread, self._producer = self._thread, None, None
        if thread is not None:
            thread.shutdown()

    async def _connect(self) -> None:
        settings = {
            **self._config.client(),
            "enable.idempotence": True,
            "linger.ms": 1,
            "message.timeout.ms": int(self._config.timeout * 1000),
        }
        await self._on_thread(lambda: self._start(settings))

    def _start(self, settings: dict[str, Any]) -> None:
        producer = Producer(settings, logger=log)
        producer.list_topics(timeout=_CONNECT_S)
        self._producer = producer

    def _record(self, delivery: Delivery) -> dict[str, Any]:
        key = delivery.payload.get(self._config.partition_by)
        return {
            "topic": self._config.topic.filled(delivery.payload),
            "value": msgspec.json.encode(delivery.payload),
            "key": None if key is None else str(key),
            "headers": [("idempotency-key", delivery.key.encode())],
        }

    def _produce(self, records: Sequence[dict[str, Any]]) -> None:
        producer = self._producer
        if producer is None:
            raise Unavailable(f"sink {self._name!r} is closed")
        failures: list[KafkaError] = []

        def delivered(error: KafkaError | None, _record: Any) -> None:
            if error is not None:
                failures.append(error)

        for record in records:
            producer.produce(**record, on_delivery=delivered)
        left = producer.flush(self._config.timeout + 1)
        if left or any(error.fatal() for error in failures):
            producer.purge()
            self._producer = None  # the next try begins with a new one
        errors = [error_of(f"sink {self._name!r}", error) for error in failures]
        for error in sorted(errors, key=lambda error: isinstance(error, InvalidInput)):  # what may pass later first
            raise error
        if left:
            raise Unavailable(f"sink {self._name!r}: the brokers did not confirm {left} messages in {self._config.timeout:g} s")

    async def _on_thread(self, work: Any) -> None:
        if self._thread is None:
            raise Unavailable(f"sink {self._name!r} is closed")
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except InferloopError:
            raise
        except (KafkaException, BufferError) as error:
            if isinstance(error, KafkaException):
                raise error_of(f"sink {self._name!r}", error) from error
            raise Unavailable(f"sink {self._name!r}: {error}") from error
