"""One method of a service, and what all of them say beside their answer: trailing metadata."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from inferloop.core.errors import InferloopError, InvalidInput
from inferloop.net.grpc_call import Call, Handler
from inferloop.net.http import header_text

PREDICTION_ID = "inferloop-prediction-id"
HINT = "inferloop-hint"

Unary = Callable[[Call, bytes], Awaitable[bytes]]


class Rpc:
    """See `net.grpc_call.Method`."""

    __slots__ = ("handle", "streams", "unary")

    def __init__(self, handle: Handler, *, streams: bool, unary: Unary | None = None) -> None:
        self.handle = handle
        self.streams = streams
        self.unary = unary


def unary(answer: Unary) -> Rpc:
    """A method with one message each way."""

    async def handle(call: Call) -> None:
        message = await call.recv()
        if message is None:
            raise InvalidInput(f"{call.method} takes one message, got none")
        await call.send(await answer(call, message))

    return Rpc(handle, streams=False, unary=answer)


def stream(handle: Handler) -> Rpc:
    """A method with any number of messages on either side."""
    return Rpc(handle, streams=True)


def tell_hint(call: Call, error: InferloopError) -> None:
    """Let the hint of an error leave with its status."""
    if error.hint:
        call.set_trailers({HINT: header_text(error.hint)})
