"""gRPC beside REST: the services on a transport, started and drained as one."""

from __future__ import annotations

from typing import Self

from inferloop.net.tls import TlsSettings
from inferloop.serving.grpc.service import Grpc
from inferloop.serving.grpc.transport import GrpcTransport, grpc_server
from inferloop.serving.services import Services


class GrpcFrontEnd:
    """`async with GrpcFrontEnd(services) as grpc:` listens; leaving it drains. All on one event loop."""

    def __init__(
        self,
        services: Services,
        *,
        host: str = "127.0.0.1",
        port: int = 8001,
        transport: GrpcTransport = GrpcTransport.HTTP2,
        tls: TlsSettings | None = None,
        shared: bool = False,
    ) -> None:
        """Set up; nothing is opened yet.

        Args:
            services: what answers.
            host: the address to listen on.
            port: 0 takes a free one.
            transport: what carries the calls.
            tls: the files of TLS; None serves plain text.
            shared: whether other processes listen on the port too, each with a part of the connections.

        Raises:
            MissingDependency: the transport's package is not installed.
        """
        self._grpc = Grpc(services)
        self._server = grpc_server(
            transport, self._grpc.find, host=host, port=port, message_bytes=services.body_bytes, tls=tls, shared=shared
        )

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return self._server.port

    async def start(self) -> None:
        """Listen.

        Raises:
            Unavailable: another process has the port.
            InvalidInput: the address is not one of this machine, or the port is not ours to take.
        """
        await self._server.start()

    async def drain(self, grace_s: float = 30.0) -> None:
        """Stop accepting, answer what was taken, end the streams, close; after `grace_s` drop what is left."""
        self._grpc.end_streams()
        await self._server.drain(grace_s)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.drain()
