"""The streams of one connection: those that are open, how they end, and patience with what comes for those that have ended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from inferloop.net.http2 import frames
from inferloop.net.http2.allowance import Allowance
from inferloop.net.http2.carrier import Carried
from inferloop.net.http2.deadlines import Deadlines
from inferloop.net.http2.limits import Http2Limits
from inferloop.net.http2.outflow import Outflow
from inferloop.net.http2.output import Output
from inferloop.net.http2.stream import SOON_S, Stream
from inferloop.net.http2.violation import ErrorCode, Violation

_EARNED = 4
_TOLERATED = 4096


class Server(Protocol):
    """What all connections share.

    Attributes:
        now: the loop's time, up to a tick ago.
        tasks: handlers of methods that stream.
    """

    limits: Http2Limits
    deadlines: Deadlines
    now: float
    tasks: set[asyncio.Task[None]]


class OpenStreams:
    """See `carrier.Carrier`, which this is for each of its streams.

    Attributes:
        by_id: the open ones.
        last: the highest stream that the client has opened.
        accepted: streams above this one are refused: the connection is being left.
        ending: the connection ends; what is refused now needs no count.
    """

    def __init__(
        self,
        server: Server,
        output: Output,
        outflow: Outflow,
        *,
        end: Callable[[ErrorCode, str], None],
        emptied: Callable[[], None],
    ) -> None:
        """Set up.

        Args:
            server: what all connections share.
            output: for frames that end streams.
            outflow: for answers.
            end: ends the connection.
            emptied: called when the last stream has gone.
        """
        self.limits = server.limits
        self.deadlines = server.deadlines
        self.outflow = outflow
        self.write: Callable[[bytes], None] = output.write
        self.working = 0
        self.unread_bytes = 0
        self.peer = ""
        self.subject = ""
        self.by_id: dict[int, Stream] = {}
        self.last = 0
        self.accepted = frames.MAX_STREAM
        self.ending = False
        self._server = server
        self._end = end
        self._emptied = emptied
        self._fresh: list[Stream] = []
        self._tolerated: dict[int, None] = {}
        self._resets = Allowance(self.limits.resets, self.limits.resets_per_s)
        self._control = Allowance(self.limits.control, self.limits.control_per_s)

    # what streams call

    @property
    def now(self) -> float:
        """See `Carrier.now`."""
        return self._server.now

    def forget(self, stream: Carried) -> None:
        """See `Carrier.forget`."""
        if stream.closed:
            return
        if not stream.ended:
            self.write(frames.rst_stream(stream.id, ErrorCode.NO_ERROR))
            self.tolerate(stream.id)
        self._control.earn(_EARNED)
        self.remove(stream)

    def reset(self, stream: Carried, code: ErrorCode) -> None:
        """See `Carrier.reset`."""
        if stream.closed:
            return
        self.refuse(stream.id, code)
        self.remove(stream)

    def watch(self, task: asyncio.Task[None]) -> None:
        """See `Carrier.watch`."""
        self._server.tasks.add(task)
        task.add_done_callback(self._server.tasks.discard)

    # what the connection calls

    @property
    def full(self) -> bool:
        """Whether the client has as many calls open, or still in work, as it may."""
        return max(len(self.by_id), self.working) >= self.limits.streams

    def add(self, stream: Stream, timeout_s: float | None) -> None:
        """A call begins; its deadline is `timeout_s` away."""
        self.by_id[stream.id] = stream
        if timeout_s is not None and timeout_s < SOON_S:
            self._fresh.append(stream)

    def watch_deadlines(self) -> None:
        """Give timers to the calls of this turn whose deadline is near and that have no answer yet."""
        for stream in self._fresh:
            stream.watch_deadline()
        self._fresh.clear()

    def check_known(self, stream_id: int) -> None:
        """Frames other than HEADERS and PRIORITY open no stream.

        Raises:
            Violation: this one would.
        """
        if stream_id == 0 or stream_id > self.last or not stream_id & 1:
            raise Violation(ErrorCode.PROTOCOL_ERROR, f"stream {stream_id} is not open")

    def nuisance(self, tokens: float = 1.0) -> None:
        """A frame that asks for nothing.

        Raises:
            Violation: too many of them.
        """
        if not self._control.spend(tokens):
            raise Violation(ErrorCode.ENHANCE_YOUR_CALM, "too many frames that ask for nothing")

    def refuse(self, stream_id: int, code: ErrorCode) -> None:
        """RST_STREAM, and patience with what is still on its way."""
        self.write(frames.rst_stream(stream_id, code))
        self.tolerate(stream_id)
        self.count_reset()

    def count_reset(self) -> None:
        """A call was called off, by either side."""
        if not self._resets.spend() and not self.ending:
            self._end(ErrorCode.ENHANCE_YOUR_CALM, "too many calls were called off")

    def tolerate(self, stream_id: int) -> None:
        """Frames for this stream may have been on their way when it was closed."""
        self._tolerated[stream_id] = None
        if len(self._tolerated) > _TOLERATED:
            del self._tolerated[next(iter(self._tolerated))]

    def tolerates(self, stream_id: int) -> bool:
        """See `tolerate`."""
        return stream_id in self._tolerated

    def remove(self, stream: Carried) -> None:
        """A stream is over."""
        removed = self.by_id.pop(stream.id, None)
        if removed is not None:
            removed.close()
        if not self.by_id:
            self._emptied()

    def clear(self) -> None:
        """The connection is over, and all its streams."""
        self.outflow.clear()
        streams = list(self.by_id.values())
        self.by_id.clear()
        self._fresh.clear()
        for stream in streams:
            stream.close()

    def elapse(self, seconds: float) -> None:
        """Time has passed; what a client may do in a burst is refilled."""
        self._resets.elapse(seconds)
        self._control.elapse(seconds)

    def check_time(self, now: float) -> None:
        """See `Stream.check_time`."""
        for stream in list(self.by_id.values()):
            stream.check_time(now)
