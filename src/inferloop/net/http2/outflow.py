"""What leaves one connection: the peer's windows, and a fair turn for every stream that has something to send."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol

from inferloop.net.http2 import frames

_TURN_BYTES = 256 * 1024
_FRAME_BYTES = 64 * 1024
"""A frame of ours is never longer, whatever the peer allows, so that what waits in the transport stays small."""


class Sender(Protocol):
    """A stream with something to send.

    Attributes:
        id: the stream's.
        credit: its send window less the peer's INITIAL_WINDOW_SIZE, so that a changed setting moves all streams at once.
        pending: message bytes that wait, each with its prefix.
        ending: the trailers that leave after them; None while more may come.
        queued: whether it stands in the line.
    """

    id: int
    credit: int
    pending: deque[memoryview]
    ending: bytes | None
    queued: bool

    def sent(self) -> None:
        """All that was pending has left."""
        ...

    def finished(self) -> None:
        """The trailers have left."""
        ...


class Outflow:
    """Windows and the line of streams.

    Attributes:
        window: what the connection may send.
        initial: the peer's INITIAL_WINDOW_SIZE.
        frame_bytes: the peer's MAX_FRAME_SIZE.
        paused: the transport takes no more for now; counts as a closed window.
    """

    __slots__ = ("_later", "_line", "_waits", "_write", "frame_bytes", "initial", "paused", "window")

    def __init__(self, write: Callable[[bytes], None], later: Callable[[Callable[[], None]], object]) -> None:
        self._write = write
        self._later = later
        self._waits = False
        self._line: deque[Sender] = deque()
        self.window = frames.DEFAULT_WINDOW
        self.initial = frames.DEFAULT_WINDOW
        self.frame_bytes = frames.DEFAULT_FRAME
        self.paused = False

    def room(self, stream: Sender) -> int:
        """How many message bytes could leave for a stream in one frame."""
        return min(self.window, self.initial + stream.credit, self.frame_bytes, _FRAME_BYTES)

    def enqueue(self, stream: Sender) -> None:
        """A stream has got something to send, or a wider window."""
        if not stream.queued:
            stream.queued = True
            self._line.append(stream)

    def clear(self) -> None:
        """Nothing more leaves."""
        self._line.clear()

    def pump(self) -> None:
        """Send what the windows allow, a frame a stream in turn, and at most a turn's worth in one turn of the loop.

        Streams whose own window is closed leave the line until it opens; while the connection's window is closed all stay. The
        rest waits a turn because uvloop says only then that the transport is full.
        """
        if self.paused or self._waits or not self._line:
            return
        parts: list[bytes | memoryview] = []
        finished: list[Sender] = []
        if self._turn(parts, finished):
            self._waits = True
            self._later(self._go_on)
        if parts:
            self._write(b"".join(parts))
        for stream in finished:
            stream.finished()

    def _go_on(self) -> None:
        self._waits = False
        self.pump()

    def _turn(self, parts: list[bytes | memoryview], finished: list[Sender]) -> bool:
        """Collect up to a turn's worth of frames; whether more could leave."""
        line = self._line
        left = _TURN_BYTES
        stuck = 0
        while line and left > 0:
            stream = line.popleft()
            if stream.pending and self.window <= 0:
                line.append(stream)
                stuck += 1
                if stuck >= len(line):
                    return False
                continue
            left -= self._frame(stream, parts)
            if stream.pending and self.initial + stream.credit > 0:
                line.append(stream)
                continue
            stream.queued = False
            if not stream.pending and stream.ending is not None:
                parts.append(frames.header_frames(stream.id, stream.ending, end_stream=True, limit=self.frame_bytes))
                left -= len(stream.ending)
                finished.append(stream)
        return bool(line)

    def _frame(self, stream: Sender, parts: list[bytes | memoryview]) -> int:
        """One DATA frame of a stream, if it has data and room."""
        if not stream.pending:
            return 0
        data = stream.pending[0]
        room = self.room(stream)
        if room <= 0 and len(data):
            return 0
        size = min(room, len(data))
        parts += (frames.head(size, frames.DATA, 0, stream.id), data[:size])
        self.window -= size
        stream.credit -= size
        if size == len(data):
            stream.pending.popleft()
            if not stream.pending:
                stream.sent()
        else:
            stream.pending[0] = data[size:]
        return size + frames.HEAD_BYTES
