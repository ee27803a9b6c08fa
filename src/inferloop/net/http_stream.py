"""An answer of many pieces on its way: chunked where the client keeps the connection, else up to its end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import aclosing

from inferloop.net.http import Request, StreamedResponse

log = logging.getLogger(__name__)

_LAST = b"0\r\n\r\n"


class Pouring:
    """Sends one `StreamedResponse`, each piece as it is made, and waits while the client takes none.

    Loop's thread only. A source of pieces that raises is a log line, and the connection is dropped: the client sees that
    the answer is not whole.
    """

    def __init__(self, response: StreamedResponse, request: Request, *, close: bool) -> None:
        """Set up.

        Args:
            response: its pieces are closed at the end, also when the client leaves.
            request: what it answers.
            close: whether the connection ends with this answer.
        """
        self._response = response
        self._is_chunked = request.keep_alive and not request.http10
        self.closes = close or not self._is_chunked
        self._room = asyncio.Event()
        self._room.set()
        self._task: asyncio.Task[None] | None = None

    def start(self, transport: asyncio.Transport, done: Callable[[], None]) -> None:
        """Begin to send; `done` is called after the last piece, unless the client has left."""

        def ended(task: asyncio.Task[None]) -> None:
            if task.cancelled():
                return
            if task.exception() is not None:
                log.error("streamed answer failed", exc_info=task.exception())
                transport.abort()
            else:
                done()

        self._task = asyncio.get_running_loop().create_task(self._pour(transport))
        self._task.add_done_callback(ended)

    def pause(self) -> None:
        """The client reads slower than we send."""
        self._room.clear()

    def resume(self) -> None:
        """The client has caught up."""
        self._room.set()

    def cancel(self) -> None:
        """The client has left."""
        if self._task is not None:
            self._task.cancel()

    async def _pour(self, transport: asyncio.Transport) -> None:
        async with aclosing(self._response.pieces) as pieces:
            transport.write(self._head())
            async for piece in pieces:
                if piece:  # an empty chunk would be the last one
                    transport.write(b"%x\r\n%b\r\n" % (len(piece), piece) if self._is_chunked else piece)
                await self._room.wait()
        if self._is_chunked:
            transport.write(_LAST)

    def _head(self) -> bytes:
        response = self._response
        lines = [f"HTTP/1.1 {response.status} OK", f"Content-Type: {response.content_type}"]
        lines += [f"{name}: {value}" for name, value in response.headers]
        lines += ["Transfer-Encoding: chunked"] if self._is_chunked else []
        lines += ["Connection: close"] if self.closes else []
        return "\r\n".join((*lines, "", "")).encode("latin-1", "replace")
