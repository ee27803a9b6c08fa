"""What leaves the socket of one connection: while arriving frames are read, answers are collected, and leave in one write."""

from __future__ import annotations

import asyncio


class Output:
    """The transport, as the rest of a connection sees it. Nothing happens before `open` and after `lost`.

    Attributes:
        corked: `write` collects; `uncork` sends.
    """

    __slots__ = ("_parts", "_transport", "corked")

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._parts: list[bytes] = []
        self.corked = False

    def open(self, transport: asyncio.Transport) -> None:
        """The connection is there."""
        self._transport = transport

    def lost(self) -> None:
        """The connection is gone."""
        self._transport = None
        self._parts.clear()

    @property
    def unsent(self) -> int:
        """Bytes that the client has not taken."""
        return self._transport.get_write_buffer_size() if self._transport is not None else 0

    def write(self, data: bytes) -> None:
        """Send, or collect what leaves at the end of this turn."""
        if self.corked:
            self._parts.append(data)
        elif self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def uncork(self) -> None:
        """Send what was collected."""
        self.corked = False
        parts = self._parts
        if parts:
            data = parts[0] if len(parts) == 1 else b"".join(parts)
            parts.clear()
            self.write(data)

    def finish(self) -> None:
        """Close our side only: closing with unread bytes would reset what was sent last out of the client's hands."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if transport.can_write_eof():
            transport.write_eof()
        else:
            transport.close()

    def close(self) -> None:
        """Close when all has left."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Drop the connection and what still waits."""
        if self._transport is not None:
            self._transport.abort()
