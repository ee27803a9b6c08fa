"""ModelStreamInfer: many requests and many answers on one call.

    recv ─ request ─ request ─ ...      at most 32 in work; then the client waits
             │          │
           answer     answers           side by side; they leave in the order of the requests, those of a decoupled
             └────┬─────┘               model as they come
                 send

What is wrong with one request is said in `error_message`, and the stream stays open; a client that sends the metadata
`triton_grpc_error: true` gets a status, and the stream ends.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from contextlib import aclosing
from typing import Any

from inferloop.core.errors import InferloopError, Unavailable
from inferloop.net.grpc_call import Call
from inferloop.serving.grpc import wire
from inferloop.serving.grpc.inference import Inference
from inferloop.serving.grpc.messages import INFERENCE, message_class
from inferloop.serving.grpc.requests import InferRequest
from inferloop.serving.grpc.rpc import Rpc, stream, tell_hint

log = logging.getLogger(__name__)

_MOST_AT_ONCE = 32
_ANSWER_FIELD = 2
_STRICT = "triton_grpc_error"
_NO_TURN = (None, None)


class Streams:
    """The method, and the calls of it that are open."""

    def __init__(self, inference: Inference) -> None:
        self._inference = inference
        self._open: set[_Conversation] = set()

    def methods(self) -> dict[str, Rpc]:
        """By path."""
        return {f"/{INFERENCE}/ModelStreamInfer": stream(self.handle)}

    async def handle(self, call: Call) -> None:
        """Serve one stream; see `net.grpc_call.Handler`."""
        conversation = _Conversation(call, self._inference)
        self._open.add(conversation)
        try:
            await conversation.run()
        except InferloopError as error:
            tell_hint(call, error)
            raise
        finally:
            self._open.discard(conversation)

    def end(self) -> None:
        """Let every stream answer what it has read, and then end with UNAVAILABLE."""
        for conversation in self._open:
            conversation.end()


class _Conversation:
    """One stream. Its call's task reads; each request has a task of its own."""

    def __init__(self, call: Call, inference: Inference) -> None:
        self._call = call
        self._inference = inference
        self._message = message_class("inference.ModelStreamInferResponse")
        self._strict = any(name == _STRICT and value == "true" for name, value in call.metadata)
        self._slots = asyncio.Semaphore(_MOST_AT_ONCE)
        self._sending = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._reading: asyncio.Task[bytes | None] | None = None
        self._over: BaseException | None = None
        self._last = asyncio.Event()
        self._last.set()

    async def run(self) -> None:
        """Read until the client has finished, it all ends, or a strict client's request fails; answer what was read."""
        try:
            while (message := await self._next()) is not None:
                self._begin(message)
            while self._tasks:
                await asyncio.wait(self._tasks)
        finally:
            left = list(self._tasks)
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)
        if self._over is not None:
            raise self._over

    def end(self) -> None:
        """Read no more."""
        self._stop(Unavailable("the server is stopping", hint="another one may answer"))

    def _stop(self, reason: BaseException) -> None:
        if self._over is None:
            self._over = reason
        if self._reading is not None:
            self._reading.cancel()

    async def _next(self) -> bytes | None:
        """The next request, once there is room for it; None at the end."""
        await self._slots.acquire()
        if self._over is not None:
            return None
        self._reading = asyncio.ensure_future(self._call.recv())
        try:
            return await self._reading
        except asyncio.CancelledError:
            self._reading.cancel()
            if self._over is None:
                raise
            return None

    def _begin(self, message: bytes) -> None:
        try:
            request = self._inference.read(message)
        except InferloopError as error:
            self._spawn(self._refuse(error, *self._turn()))
        else:
            turn = _NO_TURN if self._inference.is_decoupled(request) else self._turn()
            self._spawn(self._serve(request, *turn))

    def _turn(self) -> tuple[asyncio.Event, asyncio.Event]:
        """What a request waits for before it answers, and what it sets when it has."""
        before, self._last = self._last, asyncio.Event()
        return before, self._last

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._slots.release()
        if not task.cancelled() and (error := task.exception()) is not None:
            self._stop(error)

    async def _serve(self, request: InferRequest, before: asyncio.Event | None, after: asyncio.Event | None) -> None:
        try:
            async with aclosing(self._inference.answers(self._call, request)) as answers:
                async for answer in answers:
                    await self._send(wire.field(_ANSWER_FIELD, len(answer)) + answer, before)
        except InferloopError as error:
            await self._fail(error, request.id, before)
        except Exception:  # one request fails, the stream goes on
            log.exception("request failed", extra={"method": self._call.method})
            await self._fail(InferloopError("internal error"), request.id, before)
        finally:  # the next one's turn comes, whatever became of this one
            if after is not None:
                after.set()

    async def _refuse(self, error: InferloopError, before: asyncio.Event, after: asyncio.Event) -> None:
        try:
            await self._fail(error, b"", before)
        finally:
            after.set()

    async def _fail(self, error: InferloopError, request_id: bytes, before: asyncio.Event | None) -> None:
        if self._strict:
            if before is not None:
                await before.wait()
            raise error
        message = self._message(error_message=error.message, infer_response={"id": request_id.decode()})
        await self._send(message.SerializeToString(), before)

    async def _send(self, message: bytes, before: asyncio.Event | None) -> None:
        if before is not None:
            await before.wait()
        async with self._sending:
            await self._call.send(message)
