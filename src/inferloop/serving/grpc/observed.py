"""Calls that leave a line in the access log."""

from __future__ import annotations

import time
from collections.abc import Mapping

from inferloop.core.errors import InferloopError
from inferloop.net.grpc_call import Call, Metadata
from inferloop.serving.access import Access, AccessLog, request_id
from inferloop.serving.grpc.rpc import Rpc, Unary

_REQUEST_ID = "x-request-id"
_PREDICTION_ID = "inferloop-prediction-id"
_MODEL_NAME = b"\n"
_INFER = "/ModelInfer"


def observed(path: str, rpc: Rpc, access: AccessLog) -> Rpc:
    """The same method, with a line for each call: of a stream one when it is over, with the bytes of all its messages."""

    async def handle(call: Call) -> None:
        seen = SeenCall(call)
        try:
            await rpc.handle(seen)
        except BaseException as error:
            access.record(seen.line(_status(error)))
            raise
        access.record(seen.line("OK"))

    return Rpc(handle, streams=rpc.streams, unary=None if rpc.unary is None else _unary(path, rpc.unary, access))


class SeenCall:
    """A call that counts what goes through it. See `net.grpc_call.Call`."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._came, self._started = time.time(), time.perf_counter()
        self.method: str = call.method
        self.metadata: Metadata = call.metadata
        self.deadline: float | None = call.deadline
        self.peer: str = call.peer
        self.subject: str = call.subject
        self.bytes_in = self.bytes_out = 0
        self.model = ""
        self._prediction_id = ""

    async def recv(self) -> bytes | None:
        """See `Call.recv`."""
        message = await self._call.recv()
        if message is not None:
            self.bytes_in += len(message)
        return message

    async def send(self, message: bytes) -> None:
        """See `Call.send`."""
        self.bytes_out += len(message)
        await self._call.send(message)

    def set_trailers(self, metadata: Mapping[str, str]) -> None:
        """See `Call.set_trailers`."""
        for name, value in metadata.items():
            if name.lower() == _PREDICTION_ID:
                self._prediction_id = value
        self._call.set_trailers(metadata)

    def line(self, status: str) -> Access:
        """What the log says of it."""
        given = next((value for name, value in self.metadata if name == _REQUEST_ID and isinstance(value, str)), "")
        return Access(
            self._came,
            "grpc",
            self.method,
            status,
            time.perf_counter() - self._started,
            self.bytes_in,
            self.bytes_out,
            self.peer,
            request_id(given),
            self._prediction_id,
            self.model,
        )


def _unary(path: str, unary: Unary, access: AccessLog) -> Unary:
    names_model = path.endswith(_INFER)

    async def answer(call: Call, message: bytes) -> bytes:
        seen = SeenCall(call)
        seen.bytes_in = len(message)
        if names_model:
            seen.model = _model(message)
        try:
            found = await unary(seen, message)
        except BaseException as error:
            access.record(seen.line(_status(error)))
            raise
        seen.bytes_out = len(found)
        access.record(seen.line("OK"))
        return found

    return answer


def _model(message: bytes) -> str:
    """The first field of an inference request, as every client writes it; empty if it is another one or a long name."""
    if message[:1] != _MODEL_NAME or len(message) < 2 or message[1] >= 128:
        return ""
    return message[2 : 2 + message[1]].decode("utf-8", "replace")


def _status(error: BaseException) -> str:
    if isinstance(error, InferloopError):
        return error.grpc_code
    return "INTERNAL" if isinstance(error, Exception) else "CANCELLED"
