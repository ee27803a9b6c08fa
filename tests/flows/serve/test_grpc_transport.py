"""What every transport promises the services: a call as `net.grpc_call` describes it, over plain text and TLS."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import grpc
import pytest
import trustme

from inferloop.core.errors import NotFound, Unavailable
from inferloop.net.grpc_call import Call
from inferloop.net.tls import TlsSettings
from inferloop.serving.grpc.rpc import stream, unary
from inferloop.serving.grpc.transport import GrpcServer, GrpcTransport, grpc_server


class Seen:
    """A service that notes what it sees."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.started = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.methods = {
            "/t.T/Echo": unary(self.echo),
            "/t.T/Fail": unary(self.fail),
            "/t.T/Bug": unary(self.bug),
            "/t.T/Wait": unary(self.wait),
            "/t.T/WaitStream": stream(self.wait_stream),
        }

    async def echo(self, call: Call, message: bytes) -> bytes:
        self.calls.append(call)
        call.set_trailers({"one": "1"})
        call.set_trailers({"two": "2"})
        return message

    async def fail(self, call: Call, message: bytes) -> bytes:
        call.set_trailers({"inferloop-hint": "look elsewhere"})
        raise NotFound("no häß\nhere")

    async def bug(self, call: Call, message: bytes) -> bytes:
        raise ZeroDivisionError("a secret")

    async def wait(self, call: Call, message: bytes) -> bytes:
        self.started.set()
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return b""

    async def wait_stream(self, call: Call) -> None:
        await self.wait(call, b"")


@asynccontextmanager
async def channel_to(
    seen: Seen, transport: GrpcTransport, *, tls: TlsSettings | None = None, credentials: object = None
) -> AsyncIterator[grpc.aio.Channel]:
    server: GrpcServer = grpc_server(transport, seen.methods.get, host="localhost", port=0, message_bytes=1 << 20, tls=tls)
    await server.start()
    address = f"localhost:{server.port}"
    secure = credentials is not None
    try:
        async with grpc.aio.secure_channel(address, credentials) if secure else grpc.aio.insecure_channel(address) as channel:
            yield channel
    finally:
        await server.drain(5)


def written(folder: Path, ca: trustme.CA, *, asks_clients: bool) -> TlsSettings:
    """The files of a server on localhost."""
    leaf = ca.issue_cert("localhost")
    leaf.private_key_pem.write_to_path(folder / "server.key")
    leaf.cert_chain_pems[0].write_to_path(folder / "server.pem")
    ca.cert_pem.write_to_path(folder / "ca.pem")
    return TlsSettings(folder / "server.pem", folder / "server.key", folder / "ca.pem" if asks_clients else None)


async def test_metadata_deadline_and_trailers_cross(transport: GrpcTransport) -> None:
    seen = Seen()
    async with channel_to(seen, transport) as channel:
        metadata = (("name", "a"), ("name", "b"), ("blob-bin", b"\x00\xff"))
        call = channel.unary_unary("/t.T/Echo")(b"x" * 100_000, timeout=50, metadata=metadata)
        answer, trailers = await call, dict(await call.trailing_metadata())
        await channel.unary_unary("/t.T/Echo")(b"")
    first, second = seen.calls
    assert (answer, trailers["one"], trailers["two"]) == (b"x" * 100_000, "1", "2")
    assert [pair for pair in first.metadata if pair[0] in ("name", "blob-bin")] == list(metadata)
    assert 0 < first.deadline - time.monotonic() <= 55  # clients round it up
    assert (second.deadline, first.method, first.subject) == (None, "/t.T/Echo", "")


async def test_errors_become_statuses(transport: GrpcTransport) -> None:
    async with channel_to(Seen(), transport) as channel:
        with pytest.raises(grpc.RpcError) as failed:
            await channel.unary_unary("/t.T/Fail")(b"")
        with pytest.raises(grpc.RpcError) as bug:
            await channel.unary_unary("/t.T/Bug")(b"")
        with pytest.raises(grpc.RpcError) as missing:
            await channel.unary_unary("/t.T/Missing")(b"")
    assert (failed.value.code(), failed.value.details()) == (grpc.StatusCode.NOT_FOUND, "no häß\nhere")
    assert dict(failed.value.trailing_metadata())["inferloop-hint"] == "look elsewhere"
    assert (bug.value.code(), bug.value.details()) == (grpc.StatusCode.INTERNAL, "internal error")
    assert missing.value.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("method", ["Wait", "WaitStream"])
async def test_a_client_that_leaves_cancels_its_handler(transport: GrpcTransport, method: str) -> None:
    seen = Seen()
    async with channel_to(seen, transport) as channel:
        make = channel.unary_unary if method == "Wait" else channel.stream_unary
        call = make(f"/t.T/{method}")(b"") if method == "Wait" else make(f"/t.T/{method}")()
        await asyncio.wait_for(seen.started.wait(), 60)
        call.cancel()
        with suppress(asyncio.CancelledError, grpc.RpcError):
            await call
        await asyncio.wait_for(seen.cancelled.wait(), 60)


async def test_a_deadline_ends_a_call_that_waits(transport: GrpcTransport) -> None:
    seen = Seen()
    async with channel_to(seen, transport) as channel:
        async with asyncio.timeout(60):
            while not seen.cancelled.is_set():  # a deadline may pass before the server has seen the call
                with pytest.raises(grpc.RpcError) as caught:
                    await channel.unary_unary("/t.T/Wait")(b"", timeout=1)
                assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_a_port_in_use_is_told(transport: GrpcTransport) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        server = grpc_server(transport, {}.get, host="127.0.0.1", port=port, message_bytes=1 << 20)
        with pytest.raises(Unavailable, match=f"port {port} of 127.0.0.1 is in use"):
            await server.start()
        await server.drain(1)


async def test_tls_protects_calls_and_names_no_client(tmp_path: Path, transport: GrpcTransport) -> None:
    ca, seen = trustme.CA(), Seen()
    trusted = grpc.ssl_channel_credentials(ca.cert_pem.bytes())
    async with channel_to(seen, transport, tls=written(tmp_path, ca, asks_clients=False), credentials=trusted) as channel:
        assert await channel.unary_unary("/t.T/Echo")(b"x" * 300_000, timeout=60) == b"x" * 300_000
    assert seen.calls[0].subject == ""


async def test_a_client_s_certificate_says_who_calls(tmp_path: Path, transport: GrpcTransport) -> None:
    ca, seen = trustme.CA(), Seen()
    leaf = ca.issue_cert("edge-7.example", common_name="edge-7")
    key, chain = leaf.private_key_pem.bytes(), b"".join(blob.bytes() for blob in leaf.cert_chain_pems)
    named = grpc.ssl_channel_credentials(ca.cert_pem.bytes(), key, chain)
    async with channel_to(seen, transport, tls=written(tmp_path, ca, asks_clients=True), credentials=named) as channel:
        assert await channel.unary_unary("/t.T/Echo")(b"hi", timeout=60) == b"hi"
    assert seen.calls[0].subject.split(",")[0] == "CN=edge-7"


async def test_a_client_without_a_certificate_that_we_know_is_sent_away(tmp_path: Path, transport: GrpcTransport) -> None:
    ca, seen = trustme.CA(), Seen()
    stranger = trustme.CA().issue_cert("edge-7.example", common_name="edge-7")
    chain = b"".join(blob.bytes() for blob in stranger.cert_chain_pems)
    tls = written(tmp_path, ca, asks_clients=True)
    nameless = grpc.ssl_channel_credentials(ca.cert_pem.bytes())
    unknown = grpc.ssl_channel_credentials(ca.cert_pem.bytes(), stranger.private_key_pem.bytes(), chain)
    for credentials in (nameless, unknown):
        async with channel_to(seen, transport, tls=tls, credentials=credentials) as channel:
            with pytest.raises(grpc.RpcError) as refused:
                await channel.unary_unary("/t.T/Echo")(b"hi", timeout=60)
            assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    assert not seen.calls
