"""A line of JSON on standard output."""

from __future__ import annotations

import asyncio
import io
import select
import sys
from collections.abc import Sequence
from typing import Any

import msgspec
from pydantic import BaseModel, ConfigDict, Field

from inferloop.core.errors import Unavailable
from inferloop.core.protocols import Delivery, Sink
from inferloop.streams.contexts import SinkContext

_POLL_S = 0.01
_PIECE_CHARS = 1024
"""At most 4096 bytes: a pipe that is writable takes as many without making us wait."""


class StdoutSink(Sink):
    """Writes and flushes a batch at a time; a reader that does not read holds up its lane and nothing else."""

    class Config(BaseModel):
        """What to write.

        Attributes:
            json: the line; a text that starts with `=` is an expression. Without it: identity, decision and fields.
        """

        model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

        line: Any = Field(None, alias="json")

    payload_key = "json"
    idempotent = False
    batched = True

    def __init__(self, _config: Config, context: SinkContext) -> None:
        self._name = context.name

    async def open(self) -> None:
        """See `Sink.open`."""

    async def send(self, deliveries: Sequence[Delivery]) -> None:
        """See `Sink.send`."""
        text = "".join(msgspec.json.encode(item.payload).decode() + "\n" for item in deliveries)
        try:
            for start in range(0, len(text), _PIECE_CHARS):
                while not _is_writable():  # noqa: ASYNC110  # a regular file has no event for it
                    await asyncio.sleep(_POLL_S)
                sys.stdout.write(text[start : start + _PIECE_CHARS])
                sys.stdout.flush()
        except OSError as error:
            raise Unavailable(f"sink {self._name!r}: standard output: {error.strerror}") from error

    async def close(self) -> None:
        """See `Sink.close`."""


def _is_writable() -> bool:
    """Whether standard output takes a piece at once; what has no descriptor, or none to wait for, does."""
    try:
        return bool(select.select([], [sys.stdout], [], 0)[1])
    except (OSError, ValueError, io.UnsupportedOperation):
        return True
