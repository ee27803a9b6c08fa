"""The receiving half of a call: its intake within the connection's budget, and the wait for the next message."""

from __future__ import annotations

import asyncio

from inferloop.core.errors import InvalidInput, TooLarge
from inferloop.net.decompress import decompress
from inferloop.net.http2 import frames
from inferloop.net.http2.carrier import Carrier
from inferloop.net.http2.intake import Broken, Intake


class Incoming:
    """What a client sends on one stream."""

    __slots__ = ("_arrived", "_carrier", "_encoding", "_intake")

    def __init__(self, carrier: Carrier, encoding: str, *, ended: bool) -> None:
        self._carrier = carrier
        self._encoding = encoding
        self._intake = Intake(carrier.limits.window_bytes, carrier.limits.message_bytes)
        self._intake.ended = ended
        self._arrived: asyncio.Future[None] | None = None

    @property
    def ended(self) -> bool:
        """The client has finished sending."""
        return self._intake.ended

    @property
    def unread_bytes(self) -> int:
        """What has come and was not taken."""
        return self._intake.unread_bytes

    def charge(self, length: int) -> bool:
        """Count against the stream's window; False if the client sent more than it may."""
        self._intake.window -= length
        return self._intake.window >= 0

    def add(self, data: bytes, *, ended: bool) -> None:
        """Take what arrived.

        Raises:
            TooLarge: the message is above the limit, or the connection's streams hold too much together.
            Broken: it is no gRPC message.
        """
        carrier = self._carrier
        carrier.unread_bytes += len(data)
        self._intake.ended = ended
        self._intake.add(data)
        if carrier.unread_bytes > carrier.limits.buffered_bytes:
            hint = "send less at once, or over several connections"
            raise TooLarge(f"the connection holds {carrier.unread_bytes} unread bytes", hint=hint)

    def take(self) -> tuple[bool, bytes] | None:
        """See `Intake.take`."""
        before = self._intake.unread_bytes
        try:
            return self._intake.take()
        finally:
            self._carrier.unread_bytes -= before - self._intake.unread_bytes

    async def more(self) -> None:
        """Wait until something arrives."""
        self._arrived = asyncio.get_running_loop().create_future()
        await self._arrived

    def wake(self) -> None:
        """Something has arrived."""
        if self._arrived is not None and not self._arrived.done():
            self._arrived.set_result(None)

    def grant(self, stream_id: int) -> None:
        """Let the client send on, if it is time."""
        grant = self._intake.credit()
        if grant:
            self._carrier.write(frames.window_update(stream_id, grant))

    def clear(self) -> None:
        """Forget what was not taken."""
        self._carrier.unread_bytes -= self._intake.unread_bytes
        self._intake.clear()

    async def plain(self, compressed: bool, message: bytes) -> bytes:
        """Undo the compression of a message.

        Raises:
            TooLarge: it grows beyond the limit.
            Broken: it is not what its encoding says, or has none.
        """
        if not compressed:
            return message
        if self._encoding == "identity":
            raise Broken("a message is flagged as compressed, and grpc-encoding names no way")
        try:
            return await decompress(message, self._encoding, limit=self._carrier.limits.message_bytes)
        except TooLarge:
            raise
        except InvalidInput as error:
            raise Broken(error.message) from error
