"""One call on its stream: implements `grpc_call.Call` over the windows and frames of its connection.

    DATA ─ Incoming ─ recv / Method.unary ─ send ─ Outflow ─ DATA ... HEADERS with the status

A unary method runs without a Task, from the frame that completes its request to the one write that answers it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Coroutine, Mapping
from typing import Any, cast

from inferloop.core.errors import Cancelled, DeadlineExceeded, InferloopError, Unsupported
from inferloop.core.work import Drive, Work
from inferloop.net.grpc_call import Metadata, Method, Status
from inferloop.net.http2 import blocks, frames
from inferloop.net.http2.answer import whole
from inferloop.net.http2.carrier import Carrier
from inferloop.net.http2.head import Head
from inferloop.net.http2.incoming import Incoming
from inferloop.net.http2.intake import PREFIX, Broken
from inferloop.net.http2.violation import ErrorCode
from inferloop.net.uptake import Uptake

log = logging.getLogger(__name__)

SOON_S = 1.0
"""A deadline nearer than this has a timer; one further away is looked at by the server's tick, several times a second."""

_JOINED_BYTES = 64 * 1024
_HEADERS = blocks.HEADERS_OK
_U32 = frames.U32.pack


class Stream:
    """See `grpc_call.Call` and `outflow.Sender`.

    Attributes:
        ended: the client has finished sending.
        closed: nothing more is sent or taken.
        watched: the deadline has a timer.
        since: when it began to wait: for the request to be complete, or for an answer to leave.
    """

    __slots__ = (
        "_answering", "_carrier", "_encoding", "_incoming", "_method", "_senders", "_trailers", "_uptake", "_work", "closed",
        "credit", "deadline", "ended", "ending", "id", "metadata", "method", "peer", "pending", "queued", "since", "started",
        "subject", "watched",
    )  # fmt: skip

    def __init__(self, carrier: Carrier, stream_id: int, method: Method, head: Head, deadline: float | None) -> None:
        self._carrier = carrier
        self._method = method
        self._encoding = head.encoding
        self._incoming: Incoming | None = None
        self._work: Work[bytes] | asyncio.Task[None] | None = None
        self._senders: list[asyncio.Future[None]] | None = None
        self._trailers: dict[str, str] | None = None
        self._answering = False
        self._uptake: Uptake | None = None
        self.id = stream_id
        self.method = head.path
        self.metadata: Metadata = head.metadata
        self.deadline = deadline
        self.peer = carrier.peer
        self.subject = carrier.subject
        self.credit = 0
        self.pending: deque[memoryview] = _NOTHING
        self.ending: bytes | None = None
        self.queued = False
        self.ended = False
        self.closed = False
        self.started = False
        self.watched = False
        self.since = carrier.now

    # what a service calls

    async def recv(self) -> bytes | None:
        """See `Call.recv`."""
        incoming = self._receiving()
        while (taken := incoming.take()) is None:
            if incoming.ended:
                return None
            self._check_open()
            await incoming.more()
        self._grant(incoming)
        return await incoming.plain(*taken)

    async def send(self, message: bytes) -> None:
        """See `Call.send`."""
        self._check_open()
        self._queue(message)
        self._carrier.outflow.pump()
        while self.pending and not self.closed:
            waiter = asyncio.get_running_loop().create_future()
            self._senders = [*(self._senders or ()), waiter]
            await waiter
        self._check_left()

    def set_trailers(self, metadata: Mapping[str, str]) -> None:
        """See `Call.set_trailers`.

        Raises:
            InvalidInput: a name that no metadata may have.
        """
        blocks.check_metadata(metadata)
        self._trailers = dict(metadata) if self._trailers is None else {**self._trailers, **metadata}

    # what the connection calls

    def begin(self) -> None:
        """The headers are there; a method that streams starts at once."""
        if self._is_unary:
            return
        self.started = True
        self._receiving()
        self._carrier.working += 1
        task = asyncio.get_running_loop().create_task(self._serve())
        task.add_done_callback(self._served)
        self._work = task
        self._carrier.watch(task)

    def is_whole(self, data: bytes, start: int, end: int) -> bool:
        """Whether these bytes, the last, are the one plain message of a unary call."""
        return (
            self._incoming is None
            and end - start >= PREFIX
            and data[start] == 0
            and int.from_bytes(data[start + 1 : start + PREFIX], "big") == end - start - PREFIX
            and not self._method.streams
            and self._method.unary is not None
        )

    def start_unary(self, message: bytes) -> None:
        """Run the method on the one message of its request."""
        self.started = True
        self._carrier.working += 1
        unary = self._method.unary
        try:
            answering = unary(self, message) if unary else None
            work = answering if isinstance(answering, Work) else Drive(cast("Coroutine[Any, Any, bytes]", answering))
        except Exception as error:  # a method that fails before its first await, and is no coroutine
            self._answered(None, error)
            return
        self._work = work
        work.start(self._answered)

    def receive(self, data: bytes, charged: int, *, ended: bool) -> None:
        """DATA: `data` of it is content, `charged` counts against the window."""
        incoming = self._receiving()
        if not incoming.charge(charged):
            self._carrier.reset(self, ErrorCode.FLOW_CONTROL_ERROR)
            return
        self.ended = ended
        try:
            incoming.add(data, ended=ended)
        except InferloopError as error:
            self._failed(error)
            return
        if ended and self._is_unary:
            self._start_collected(incoming)
            return
        incoming.wake()
        self._grant(incoming)

    def expire(self) -> None:
        """See `deadlines.Expiring`."""
        if self.pending:
            self._carrier.reset(self, ErrorCode.CANCEL)
        else:
            self._failed(DeadlineExceeded("the deadline of the call has passed"))

    def watch_deadline(self) -> None:
        """Let the deadline end the call; asked for when the deadline is near, so that most calls never set a timer."""
        if not self.closed and self.deadline is not None and not self.watched:
            self.watched = True
            self._carrier.deadlines.add(self, self.deadline)

    def check_time(self, now: float) -> None:
        """End a call whose request does not come, or whose answer is not taken; see that a deadline is met that has come near."""
        if self.deadline is not None and self.deadline - now < SOON_S:
            self.watch_deadline()
        limits = self._carrier.limits
        waited = now - self.since
        if self.pending or self.ending is not None:
            unsent = sum(map(len, self.pending))
            if self._uptake is None or self._uptake.since != self.since:
                self._uptake = Uptake(self.since, unsent)
            if self._uptake.is_late(now, unsent, patience_s=limits.write_s, rate=limits.rate):
                self._carrier.reset(self, ErrorCode.ENHANCE_YOUR_CALM)
        elif not self.started:
            come = self._incoming.unread_bytes if self._incoming is not None else 0
            if waited > limits.body_s + come / limits.rate:
                self._failed(DeadlineExceeded("the request took too long to arrive"))

    def fail(self, error: InferloopError) -> None:
        """End with a status."""
        self._failed(error)

    def close(self) -> None:
        """Stop: nothing is sent any more, and the handler is cancelled."""
        if self.closed:
            return
        self.closed = True
        self.pending = _NOTHING
        self.ending = None
        if self._incoming is not None:
            self._incoming.clear()
        if self.watched:
            self._carrier.deadlines.remove()
        if self._work is not None:
            self._work.cancel()
        self._wake_senders()

    # what the outflow calls

    def sent(self) -> None:
        """See `outflow.Sender.sent`."""
        self._wake_senders()

    def finished(self) -> None:
        """See `outflow.Sender.finished`."""
        self._carrier.forget(self)

    # inside

    @property
    def _is_unary(self) -> bool:
        return self._method.unary is not None and not self._method.streams

    def _receiving(self) -> Incoming:
        if self._incoming is None:
            self._incoming = Incoming(self._carrier, self._encoding, ended=self.ended)
        return self._incoming

    def _grant(self, incoming: Incoming) -> None:
        if not self.closed:
            incoming.grant(self.id)

    def _check_open(self) -> None:
        if self.closed or self.ending is not None:
            raise Cancelled("the call is over")

    def _check_left(self) -> None:
        if self.closed:
            raise Cancelled("the client has left")

    def _start_collected(self, incoming: Incoming) -> None:
        try:
            taken = incoming.take()
            if taken is None or incoming.unread_bytes:
                raise Unsupported("the method takes exactly one message")
        except InferloopError as error:
            self._failed(error)
            return
        compressed, message = taken
        if not compressed:
            self.start_unary(message)
            return
        self.started = True
        self._carrier.working += 1
        work = self._work = Drive(self._unary_of_compressed(incoming, message))
        work.start(self._answered)

    async def _unary_of_compressed(self, incoming: Incoming, message: bytes) -> bytes:
        unary = self._method.unary
        plain = await incoming.plain(True, message)
        return await unary(self, plain) if unary is not None else b""

    async def _serve(self) -> None:
        await self._method.handle(self)

    def _served(self, task: asyncio.Task[None]) -> None:
        """The handler of a method that streams has ended; one that was cancelled at once never began."""
        self._work = None
        self._carrier.working -= 1
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if self.closed or self.ending is not None:
            return
        if error is not None:
            self._failed(error)
        else:
            self._finish(blocks.trailers(Status.OK, "", self._trailers))

    def _answered(self, answer: bytes | None, error: BaseException | None) -> None:
        """What `unary` made of the request."""
        self._work = None
        carrier = self._carrier
        carrier.working -= 1
        if self.closed or self.ending is not None:
            return
        if answer is None or error is not None:
            self._failed(error or Broken("the method gave no answer"))
            return
        out = carrier.outflow
        size = len(answer) + PREFIX
        if out.paused or size > out.room(self) or size > _JOINED_BYTES:
            self._queue(answer)
            self._finish(blocks.trailers(Status.OK, "", self._trailers))
            return
        out.window -= size
        carrier.write(whole(self.id, answer, self._trailers, out.frame_bytes))
        carrier.forget(self)

    def _failed(self, error: BaseException) -> None:
        if isinstance(error, asyncio.CancelledError):
            error = Cancelled("the call was called off")
        elif not isinstance(error, InferloopError):
            log.error("call failed", exc_info=error, extra={"method": self.method})
        self._finish(blocks.error(error, self._trailers))

    def _queue(self, message: bytes) -> None:
        """Put a message behind those that wait."""
        if not self._answering:
            self._answering = True
            self._carrier.write(frames.header_frames(self.id, _HEADERS, end_stream=False, limit=frames.DEFAULT_FRAME))
        if not self.pending:
            self.pending = deque()
            self.since = self._carrier.now
        self.pending.append(memoryview(b"\0" + _U32(len(message)) + message))
        self._carrier.outflow.enqueue(self)

    def _finish(self, block: bytes) -> None:
        """The status leaves behind what waits; as Trailers-Only if nothing was sent."""
        if self.closed or self.ending is not None:
            return
        if not self._answering:
            self._answering = True
            block = _HEADERS + block
        self.ending = block
        if not self.pending:
            self.since = self._carrier.now
        if self._work is not None:
            self._work.cancel()
        self._carrier.outflow.enqueue(self)
        self._carrier.outflow.pump()

    def _wake_senders(self) -> None:
        for waiter in self._senders or ():
            if not waiter.done():
                waiter.set_result(None)
        self._senders = None


_NOTHING: deque[memoryview] = deque(maxlen=0)
"""Stands for an empty line, so that a call that is answered in one write makes none."""
