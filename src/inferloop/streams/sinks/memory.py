"""Deliveries in a list: the reference sink for tests and measurements, idempotent by key, and failing when told to."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pydantic import BaseModel

from inferloop.core.protocols import Delivery, Sink
from inferloop.streams.contexts import SinkContext


class MemorySink(Sink):
    """Keeps what it gets.

    Attributes:
        effects: one delivery a key, in the order in which they came first.
        received: every delivery, repetitions too.
        fault: called before each delivery is taken; what it raises is raised.
    """

    class Config(BaseModel):
        """None."""

    payload_key = "json"
    idempotent = True

    def __init__(self, context: SinkContext, *, batched: bool = True, fault: Callable[[Delivery], None] | None = None) -> None:
        self.name = context.name
        self.batched = batched
        self.fault = fault
        self.effects: dict[str, Delivery] = {}
        self.received: list[Delivery] = []

    async def open(self) -> None:
        """See `Sink.open`."""

    async def send(self, deliveries: Sequence[Delivery]) -> None:
        """See `Sink.send`."""
        for delivery in deliveries:
            if self.fault is not None:
                self.fault(delivery)
            self.received.append(delivery)
            self.effects.setdefault(delivery.key, delivery)

    async def close(self) -> None:
        """See `Sink.close`."""
