"""The transport with the client that most services use: grpcio, its synchronous and its asyncio one."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from inferloop.net.http2.limits import Http2Limits
from inferloop.net.http2.server import Http2Server
from support.calls import Calls

grpc = pytest.importorskip("grpc", reason="no grpcio: pip install 'inferloop[grpc]'")
aio = pytest.importorskip("grpc.aio")
OPEN = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


@dataclass
class Running:
    port: int
    calls: Calls
    server: Http2Server


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    calls = Calls()
    async with Http2Server(calls.find, port=0, limits=Http2Limits(streams=2000)) as server:
        yield Running(server.port, calls, server)


@pytest.fixture
def channel(running: Running) -> object:
    """grpcio's synchronous channel; it is used in threads."""
    with grpc.insecure_channel(f"127.0.0.1:{running.port}", options=OPEN) as opened:
        yield opened


async def ask(channel: object, name: str, body: bytes, **options: object) -> bytes:
    return await asyncio.to_thread(channel.unary_unary(f"/test.Echo/{name}"), body, timeout=60, **options)


async def test_a_call_brings_its_metadata_and_takes_its_answer(running: Running, channel: object) -> None:
    assert await ask(channel, "same", b"hi", metadata=(("a", "1"), ("b-bin", b"\0\xff"), ("a", "2"))) == b"hi"
    found = [pair for pair in running.calls.seen[0].metadata if pair[0] in ("a", "b-bin")]
    assert found == [("a", "1"), ("b-bin", b"\0\xff"), ("a", "2")]
    assert running.calls.seen[0].deadline is not None
    assert running.calls.seen[0].peer.startswith("127.0.0.1:")


async def test_twenty_megabytes_go_both_ways(channel: object) -> None:
    body = bytes(range(256)) * 80_000
    assert await ask(channel, "same", body) == body


@pytest.mark.parametrize("way", [grpc.Compression.Gzip, grpc.Compression.Deflate])
async def test_a_compressed_request_is_understood(channel: object, way: object) -> None:
    body = b"abc" * 50_000
    assert await ask(channel, "size", body, compression=way) == b"150000"


async def test_messages_stream_both_ways(channel: object) -> None:
    messages = [b"%d" % index * 100 for index in range(500)]
    stream = channel.stream_stream("/test.Echo/echo")
    assert await asyncio.to_thread(lambda: list(stream(iter(messages)))) == messages
    counted = channel.unary_stream("/test.Echo/count")
    assert len(await asyncio.to_thread(lambda: list(counted(b"3000")))) == 3000
    summed = channel.stream_unary("/test.Echo/sum")
    assert await asyncio.to_thread(summed, iter(messages)) == b"%d" % sum(map(len, messages))


async def test_errors_carry_code_message_and_hint(channel: object) -> None:
    with pytest.raises(grpc.RpcError) as raised:
        await ask(channel, "missing", b"")
    assert raised.value.code() is grpc.StatusCode.NOT_FOUND
    assert raised.value.details() == "no model 'ä%'"
    assert dict(raised.value.trailing_metadata())["inferloop-hint"] == "known: b"
    with pytest.raises(grpc.RpcError) as raised:
        await ask(channel, "none", b"")
    assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_trailers_of_the_service_arrive(channel: object) -> None:
    _, made = await asyncio.to_thread(channel.unary_unary("/test.Echo/trailing").with_call, b"x" * 200)
    assert dict(made.trailing_metadata())["x-said"] == "x" * 200


async def test_a_deadline_and_a_cancel_call_the_work_off(running: Running) -> None:
    async with aio.insecure_channel(f"127.0.0.1:{running.port}") as channel:
        async with asyncio.timeout(60):
            while "late" not in running.calls.cancelled:  # a deadline may pass before the server has seen the call
                with pytest.raises(aio.AioRpcError) as raised:
                    await channel.unary_unary("/test.Echo/held")(b"late", timeout=0.1)
                assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        made = channel.unary_unary("/test.Echo/held")(b"cancelled")
        async with asyncio.timeout(60):
            while running.calls.working != 1:
                await asyncio.sleep(0.005)
            made.cancel()
            while set(running.calls.cancelled) != {"late", "cancelled"}:
                await asyncio.sleep(0.005)


async def test_a_thousand_calls_at_once_get_their_own_answers(running: Running) -> None:
    async with aio.insecure_channel(f"127.0.0.1:{running.port}") as channel:
        ask_later = channel.unary_unary("/test.Echo/held")
        waiting = [asyncio.ensure_future(ask_later(b"%d" % index)) for index in range(1000)]
        async with asyncio.timeout(60):
            while running.calls.working < 1000:
                await asyncio.sleep(0.01)
        running.calls.release.set()
        assert await asyncio.gather(*waiting) == [b"%d" % index for index in range(1000)]


async def test_a_client_comes_back_after_the_server_was_replaced() -> None:
    calls = Calls()
    async with Http2Server(calls.find, port=0) as first:
        port = first.port
        channel = aio.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.initial_reconnect_backoff_ms", 100)])
        assert await channel.unary_unary("/test.Echo/same")(b"1", timeout=60) == b"1"
    async with Http2Server(calls.find, port=port):
        assert await channel.unary_unary("/test.Echo/same")(b"2", timeout=60, wait_for_ready=True) == b"2"
        await channel.close()


async def test_tls_by_alpn_serves_and_other_protocols_are_sent_away() -> None:
    trustme = pytest.importorskip("trustme", reason="no trustme: pip install 'inferloop[dev]'")
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["h2"])
    authority.issue_cert("localhost").configure_cert(context)
    trusted = grpc.ssl_channel_credentials(authority.cert_pem.bytes())
    async with Http2Server(Calls().find, host="localhost", port=0, ssl=context) as server:
        async with aio.secure_channel(f"localhost:{server.port}", trusted, options=OPEN) as channel:
            body = bytes(3_000_000)
            assert await channel.unary_unary("/test.Echo/same")(body, timeout=60) == body
        plain = ssl.create_default_context()
        authority.configure_trust(plain)
        reader, writer = await asyncio.open_connection("localhost", server.port, ssl=plain)
        async with asyncio.timeout(60):
            await reader.read()  # closed by the server: no ALPN
        writer.close()
