"""What the streams of one connection share, as a stream sees it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from inferloop.net.http2.deadlines import Deadlines
from inferloop.net.http2.limits import Http2Limits
from inferloop.net.http2.outflow import Outflow, Sender
from inferloop.net.http2.violation import ErrorCode


class Carried(Sender, Protocol):
    """A stream, as its connection ends it.

    Attributes:
        ended: the client has finished sending.
        closed: nothing more is sent or taken.
    """

    ended: bool
    closed: bool


class Carrier(Protocol):
    """The connection, as its streams see it.

    Attributes:
        write: sends, or collects what leaves at the end of this turn.
        working: handlers that have not ended, those of closed streams included.
        unread_bytes: what the intakes of all streams hold.
        peer: the client's address.
        subject: of its certificate.
    """

    limits: Http2Limits
    outflow: Outflow
    deadlines: Deadlines
    write: Callable[[bytes], None]
    working: int
    unread_bytes: int
    peer: str
    subject: str

    @property
    def now(self) -> float:
        """The loop's time, up to a tick ago."""
        ...

    def forget(self, stream: Carried) -> None:
        """The stream's answer is complete."""
        ...

    def reset(self, stream: Carried, code: ErrorCode) -> None:
        """End a stream with RST_STREAM."""
        ...

    def watch(self, task: asyncio.Task[None]) -> None:
        """Keep a task until it is done."""
        ...
