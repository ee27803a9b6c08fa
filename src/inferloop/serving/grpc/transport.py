"""Which transport carries the services, and what the server asks of it."""

from __future__ import annotations

from enum import StrEnum
from importlib.util import find_spec
from typing import Protocol

from inferloop.net.grpc_call import Find
from inferloop.net.tls import Tls, TlsSettings


class GrpcTransport(StrEnum):
    """A transport by its name on the command line."""

    HTTP2 = "http2"
    GRPCIO = "grpcio"


class GrpcServer(Protocol):
    """Listens, and hands each call to its method. One event loop."""

    @property
    def port(self) -> int:
        """The port that it listens on, once it has started."""
        ...

    async def start(self) -> None:
        """Listen.

        Raises:
            Unavailable: another process has the port.
            InvalidInput: the address is not one of this machine, or the port is not ours to take.
        """
        ...

    async def drain(self, grace_s: float = 30.0) -> None:
        """Stop accepting, let every call that was taken have its answer, close; after `grace_s` drop what is left."""
        ...


def is_installed(transport: GrpcTransport) -> bool:
    """Whether the package of a transport is there."""
    return transport is not GrpcTransport.GRPCIO or find_spec("grpc") is not None


def grpc_server(
    transport: GrpcTransport,
    find: Find,
    *,
    host: str,
    port: int,
    message_bytes: int,
    tls: TlsSettings | None = None,
    shared: bool = False,
) -> GrpcServer:
    """A server on a transport; nothing is opened yet.

    Args:
        transport: its name.
        find: a method by its path.
        host: the address to listen on.
        port: 0 takes a free one.
        message_bytes: the largest message, decompressed; beyond it a call ends with RESOURCE_EXHAUSTED.
        tls: the files of TLS; None serves plain text.
        shared: whether other processes listen on the port too, each with a part of the connections.

    Raises:
        MissingDependency: the transport's package is not installed.
        InvalidInput: the files of TLS cannot be used.
    """
    match transport:
        case GrpcTransport.GRPCIO:
            from inferloop.serving.grpc.grpcio_transport import GrpcioServer

            return GrpcioServer(find, host=host, port=port, message_bytes=message_bytes, tls=tls, shared=shared)
        case GrpcTransport.HTTP2:
            from inferloop.net.http2.limits import Http2Limits
            from inferloop.net.http2.server import Http2Server

            context = None if tls is None else Tls(tls, alpn=("h2",)).context
            limits = Http2Limits(message_bytes=message_bytes)
            return Http2Server(find, host=host, port=port, limits=limits, ssl=context, shared=shared)
