"""One gRPC call as a service sees it; the transports (`net.http2`, grpcio) provide it.

    transport ─ Call ─ service: async handler(call)

A unary handler receives one message and sends one; a streaming one receives until None and sends as often as it likes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from enum import IntEnum
from typing import Protocol

Metadata = tuple[tuple[str, str | bytes], ...]
"""Names in lower case, order kept, repeated names allowed; values of `-bin` names are bytes."""


class Status(IntEnum):
    """The status codes of gRPC, by the names that `InferloopError.grpc_code` uses."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class Call(Protocol):
    """One call. Event loop only; when the peer leaves, the handler is cancelled.

    Attributes:
        method: `/package.Service/Method`.
        metadata: what the client sent beside the reserved headers.
        deadline: `time.monotonic()` seconds, from `grpc-timeout`; None without one.
        peer: the client's address, for logs.
        subject: the subject of the client's verified certificate; empty without one.
    """

    method: str
    metadata: Metadata
    deadline: float | None
    peer: str
    subject: str

    async def recv(self) -> bytes | None:
        """The next message, decompressed; None when the client has finished sending."""
        ...

    async def send(self, message: bytes) -> None:
        """Send one message; waits while the peer's flow-control window is closed."""
        ...

    def set_trailers(self, metadata: Mapping[str, str]) -> None:
        """Metadata that leaves with the status."""
        ...


Handler = Callable[[Call], Awaitable[None]]
"""Returns for status OK; raises an `InferloopError`, whose `grpc_code` and message become the status. What else it raises is
INTERNAL without detail, and a traceback in the log."""

Find = Callable[[str], "Method | None"]
"""A method by its path; None is UNIMPLEMENTED."""


class Method(Protocol):
    """What a transport must know of a method.

    Attributes:
        handle: the handler.
        streams: whether either side sends more than one message.
        unary: for a method that does not stream, the shortest way from request bytes to answer bytes; transports may use it
            instead of `handle`. It gets the call, too, and the message.
    """

    handle: Handler
    streams: bool
    unary: Callable[[Call, bytes], Awaitable[bytes]] | None
