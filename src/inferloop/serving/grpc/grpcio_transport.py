"""The services on grpcio's server: each of its handlers becomes a `Call`."""

from __future__ import annotations

import errno
import logging
import os
import socket
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from inferloop.core.errors import InferloopError, InvalidInput, MissingDependency, Unavailable
from inferloop.net.grpc_call import Find, Metadata, Method, Status
from inferloop.net.tls import TlsSettings, make_context

try:
    import grpc
    import grpc.aio
except ImportError as error:
    raise MissingDependency("gRPC needs the package grpcio", hint="pip install 'inferloop[grpc]'") from error

log = logging.getLogger(__name__)

_CODES: dict[str, grpc.StatusCode] = {code.name: code for code in grpc.StatusCode}


class GrpcioServer:
    """A server around the methods that `find` knows. One event loop. See `transport.GrpcServer`."""

    def __init__(
        self,
        find: Find,
        *,
        host: str,
        port: int,
        message_bytes: int,
        tls: TlsSettings | None = None,
        most_calls: int = 4096,
        shared: bool = False,
    ) -> None:
        """Set up; nothing is opened yet.

        Args:
            find: a method by its path.
            host: the address to listen on.
            port: 0 takes a free one.
            message_bytes: the largest message, decompressed; RESOURCE_EXHAUSTED.
            tls: the files of TLS; renewed ones are used from the next connection on.
            most_calls: at once; RESOURCE_EXHAUSTED.
            shared: whether other processes listen on the port too.

        Raises:
            InvalidInput: the files of TLS cannot be used.
        """
        self._credentials = _credentials(tls) if tls is not None else None
        self._shared = shared
        self._host = host
        self._port = port
        options = [
            ("grpc.max_receive_message_length", message_bytes),
            ("grpc.max_send_message_length", -1),
            (
                "grpc.so_reuseport",
                int(shared),
            ),  # else a second server would share it instead of being told
        ]
        self._server = grpc.aio.server(handlers=(_Handlers(find),), options=options, maximum_concurrent_rpcs=most_calls)

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return self._port

    async def start(self) -> None:
        """See `transport.GrpcServer.start`."""
        if not self._shared:
            _check_free(self._host, self._port)
        host = f"[{self._host}]" if ":" in self._host else self._host or "[::]"
        address = f"{host}:{self._port}"
        try:
            if self._credentials is None:
                self._port = self._server.add_insecure_port(address)
            else:
                self._port = self._server.add_secure_port(address, self._credentials)
        except RuntimeError as error:  # taken since we looked
            raise Unavailable(f"cannot listen on {address}: {error}", hint="choose another port") from error
        await self._server.start()

    async def drain(self, grace_s: float = 30.0) -> None:
        """See `transport.GrpcServer.drain`."""
        await self._server.stop(grace_s)


def _check_free(host: str, port: int) -> None:
    """Refuse an address that cannot be listened on, with the system's reason; grpcio tells none."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            if os.name == "posix":
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # closed connections do not count
            probe.bind(address)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            hint = "stop the other process, or choose another port"
            raise Unavailable(f"port {port} of {host} is in use", hint=hint) from error
        if error.errno == errno.EACCES:
            raise InvalidInput(f"port {port} of {host} is not ours to take", hint="ports below 1024 need privileges") from error
        hint = "use an address of this machine"
        raise InvalidInput(f"cannot listen on {host}:{port}: {error.strerror or error}", hint=hint) from error


def _credentials(tls: TlsSettings) -> Any:
    """Credentials that follow the files; those of a bad moment are passed over, see `net.tls.Tls`."""
    make_context(tls)  # says what is wrong with them
    seen = _stamps(tls)

    def changed() -> Any:
        nonlocal seen
        try:
            stamps = _stamps(tls)
            if stamps == seen:
                return None
            make_context(tls)
            seen = stamps
            return _configuration(tls)
        except (InferloopError, OSError) as error:
            log.error("certificate not read again", extra={"error": str(error)})
            return None

    return grpc.dynamic_ssl_server_credentials(
        _configuration(tls), changed, require_client_authentication=tls.client_ca is not None
    )


def _configuration(tls: TlsSettings) -> Any:
    pair = (tls.key.read_bytes(), tls.certificate.read_bytes())
    return grpc.ssl_server_certificate_configuration([pair], tls.client_ca.read_bytes() if tls.client_ca is not None else None)


def _stamps(tls: TlsSettings) -> list[tuple[int, int]]:
    return [(path.stat().st_mtime_ns, path.stat().st_ino) for path in tls.files]


class _Handlers(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpcio has no types
    """Finds a method; one that was found is remembered."""

    def __init__(self, find: Find) -> None:
        self._find = find
        self._found: dict[str, Any] = {}

    def service(self, handler_call_details: Any) -> Any:
        """The handler of a call; None is UNIMPLEMENTED."""
        path = handler_call_details.method
        handler = self._found.get(path)
        if handler is None and (method := self._find(path)) is not None:
            handler = self._found[path] = _handler(method, path)
        return handler


def _handler(method: Method, path: str) -> Any:
    if method.streams:
        return grpc.stream_stream_rpc_method_handler(_stream_behavior(method, path))
    return grpc.unary_unary_rpc_method_handler(_unary_behavior(method, path))


def _unary_behavior(method: Method, path: str) -> Callable[[bytes, Any], Awaitable[bytes]]:
    async def behavior(message: bytes, context: Any) -> bytes:
        call = _GrpcioCall(path, context, message)
        try:
            if method.unary is not None:
                return await method.unary(call, message)
            await method.handle(call)
        except Exception as error:  # one call fails, the server goes on
            await _abort(context, path, error)
        return call.answer

    return behavior


def _stream_behavior(method: Method, path: str) -> Callable[[Any, Any], Awaitable[None]]:
    async def behavior(_requests: Any, context: Any) -> None:
        try:
            await method.handle(_GrpcioStream(path, context))
        except Exception as error:  # one call fails, the server goes on
            await _abort(context, path, error)

    return behavior


async def _abort(context: Any, path: str, error: Exception) -> None:
    """End a call with the status of an error; raises what grpcio ends it with."""
    if isinstance(error, InferloopError):
        if error.status >= 500:
            log.warning("call failed", extra={"method": path, "code": error.grpc_code, "error": error.message})
        await context.abort(_CODES[error.grpc_code], error.message, context.trailing_metadata())
    log.error("call failed", exc_info=error, extra={"method": path})
    await context.abort(_CODES[Status.INTERNAL.name], "internal error", context.trailing_metadata())


def _subject(context: Any) -> str:
    """The common name of the client's certificate, verified by grpcio; empty without one."""
    names = context.auth_context().get("x509_common_name", ())
    return f"CN={names[0].decode('utf-8', 'replace')}" if names else ""


class _GrpcioBase:
    """What both kinds of calls have."""

    def __init__(self, method: str, context: Any) -> None:
        self.method = method
        self._context = context
        self.metadata: Metadata = tuple(context.invocation_metadata() or ())
        remaining = context.time_remaining()
        self.deadline: float | None = None if remaining is None else time.monotonic() + remaining
        self.peer: str = context.peer()
        self.subject = _subject(context)
        self._trailers: dict[str, str] = {}

    def set_trailers(self, metadata: Mapping[str, str]) -> None:
        """See `Call.set_trailers`."""
        self._trailers.update(metadata)
        self._context.set_trailing_metadata(tuple(self._trailers.items()))


class _GrpcioCall(_GrpcioBase):
    """A call with one message each way; its message has come before it begins."""

    def __init__(self, method: str, context: Any, message: bytes) -> None:
        super().__init__(method, context)
        self._message: bytes | None = message
        self.answer = b""

    async def recv(self) -> bytes | None:
        """See `Call.recv`."""
        message, self._message = self._message, None
        return message

    async def send(self, message: bytes) -> None:
        """See `Call.send`."""
        self.answer = message


class _GrpcioStream(_GrpcioBase):
    """A call with any number of messages."""

    async def recv(self) -> bytes | None:
        """See `Call.recv`."""
        message = await self._context.read()
        return None if message is grpc.aio.EOF else message

    async def send(self, message: bytes) -> None:
        """See `Call.send`."""
        await self._context.write(message)
