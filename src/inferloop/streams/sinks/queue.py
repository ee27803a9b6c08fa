"""The built-in human review queue: a table beside the decision journal, as durable as that."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from inferloop.core.errors import Unavailable
from inferloop.core.protocols import Delivery, Sink
from inferloop.data.journal import ReviewItem
from inferloop.streams.contexts import SinkContext


class QueueSink(Sink):
    """Adds cases for a human; a case whose key waits already is left.

    Attributes:
        keeps_input: the ledger keeps what the model saw of a case, for as long as it waits and after.
    """

    class Config(BaseModel):
        """What the reviewer sees.

        Attributes:
            json: the case; a text that starts with `=` is an expression. Without it: identity, decision and fields.
        """

        model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

        case: Any = Field(None, alias="json")

    payload_key = "json"
    keeps_input = True
    idempotent = True
    batched = True

    def __init__(self, _config: Config, context: SinkContext) -> None:
        self._context = context

    async def open(self) -> None:
        """See `Sink.open`."""
        if self._context.journal is None:
            raise Unavailable(f"sink {self._context.name!r} has no journal to keep the queue in")

    async def send(self, deliveries: Sequence[Delivery]) -> None:
        """See `Sink.send`."""
        journal = self._context.journal
        if journal is None:
            raise Unavailable(f"sink {self._context.name!r} is closed")
        items = [self._item(delivery) for delivery in deliveries]
        await asyncio.get_running_loop().run_in_executor(self._context.executor, journal.review_add, items)

    async def close(self) -> None:
        """See `Sink.close`."""

    def _item(self, delivery: Delivery) -> ReviewItem:
        return ReviewItem(
            key=delivery.key,
            pipeline=self._context.pipeline,
            message_id=delivery.message_id,
            payload=delivery.payload,
            time=time.time(),
            prediction_id=str(delivery.payload.get("prediction_id") or ""),
        )
