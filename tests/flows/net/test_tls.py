"""TLS on a real socket: who is let in, what is refused, and certificates that are renewed."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trustme

from inferloop.core.errors import InvalidInput
from inferloop.net.http import Request, Response
from inferloop.net.http_server import HttpServer
from inferloop.net.limits import HttpLimits
from inferloop.net.tls import Tls, TlsSettings

GET = b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def settings(tmp_path: Path, ca: trustme.CA) -> TlsSettings:
    found = TlsSettings(tmp_path / "server.pem", tmp_path / "server.key")
    write(found, ca.issue_cert("localhost"))
    return found


def write(settings: TlsSettings, leaf: trustme.LeafCert) -> None:
    leaf.private_key_pem.write_to_path(settings.key)
    settings.certificate.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))


def trusting(ca: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    ca.configure_trust(context)
    return context


def asking_for_clients(settings: TlsSettings, ca: trustme.CA) -> TlsSettings:
    path = settings.certificate.with_name("clients.pem")
    ca.cert_pem.write_to_path(path)
    return TlsSettings(settings.certificate, settings.key, path)


async def echo(request: Request) -> Response:
    return Response(200, request.subject.encode() + b"|" + str(len(request.body)).encode())


async def ask(port: int, context: ssl.SSLContext, data: bytes = GET) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="localhost")
    writer.write(data)
    try:
        return await asyncio.wait_for(reader.read(), 60)
    finally:
        writer.close()


async def serial(port: int, context: ssl.SSLContext) -> str:
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="localhost")
    found: str = writer.get_extra_info("peercert")["serialNumber"]
    writer.close()
    return found


async def test_a_request_over_tls_is_answered(settings: TlsSettings, ca: trustme.CA) -> None:
    async with HttpServer(echo, port=0, tls=settings) as server:
        assert (await ask(server.port, trusting(ca))).endswith(b"|0")


async def test_a_large_body_over_tls_arrives_whole(settings: TlsSettings, ca: trustme.CA) -> None:
    size = 3_000_000
    data = GET.replace(b"GET", b"POST").replace(b"Host", b"Content-Length: %d\r\nHost" % size) + b"x" * size
    async with HttpServer(echo, port=0, tls=settings) as server:
        assert (await ask(server.port, trusting(ca), data)).endswith(b"|3000000")


async def test_a_refused_upload_over_tls_sees_its_answer(settings: TlsSettings, ca: trustme.CA) -> None:
    data = GET.replace(b"GET", b"POST").replace(b"Host", b"Content-Length: 9000000\r\nHost") + b"x" * 100_000
    limits = HttpLimits(body_bytes=1000, linger_s=60)
    async with HttpServer(echo, port=0, tls=settings, limits=limits) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=trusting(ca), server_hostname="localhost")
        writer.write(data)
        assert b" 413 " in await asyncio.wait_for(reader.readline(), 60)
        writer.close()


def test_versions_before_1_2_are_not_offered(settings: TlsSettings) -> None:
    assert Tls(settings).context.minimum_version is ssl.TLSVersion.TLSv1_2


async def test_plain_text_at_a_tls_port_is_closed_and_the_next_client_is_served(settings: TlsSettings, ca: trustme.CA) -> None:
    async with HttpServer(echo, port=0, tls=settings) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(GET)
        with suppress(ConnectionResetError):
            assert b"HTTP/1.1 200" not in await asyncio.wait_for(reader.read(), 60)
        writer.close()
        assert b" 200 " in await ask(server.port, trusting(ca))


async def test_a_handshake_that_never_comes_is_given_up(settings: TlsSettings) -> None:
    async with HttpServer(echo, port=0, tls=settings, limits=HttpLimits(header_s=0.2)) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        assert await asyncio.wait_for(reader.read(), 60) == b""
        writer.close()


async def test_the_subject_of_a_clients_certificate_is_known(settings: TlsSettings, ca: trustme.CA) -> None:
    context = trusting(ca)
    ca.issue_cert("edge-7.example", common_name="edge-7").configure_cert(context)
    async with HttpServer(echo, port=0, tls=asking_for_clients(settings, ca)) as server:
        answer = await ask(server.port, context)
    assert b"CN=edge-7" in answer


@pytest.mark.parametrize("kind", ["none", "of another CA", "expired"])
async def test_a_client_without_a_good_certificate_is_refused(settings: TlsSettings, ca: trustme.CA, kind: str) -> None:
    context = trusting(ca)
    if kind == "of another CA":
        trustme.CA().issue_cert("edge-7.example").configure_cert(context)
    elif kind == "expired":
        past = datetime(2020, 1, 2, tzinfo=UTC)
        ca.issue_cert("edge-7.example", not_before=datetime(2020, 1, 1, tzinfo=UTC), not_after=past).configure_cert(context)
    async with HttpServer(echo, port=0, tls=asking_for_clients(settings, ca)) as server:
        try:
            answer = await ask(server.port, context)
        except (ssl.SSLError, ConnectionError):
            answer = b""
        assert answer == b""


async def test_a_renewed_certificate_is_used_without_a_restart(settings: TlsSettings, ca: trustme.CA) -> None:
    async with HttpServer(echo, port=0, tls=settings) as server:
        first = await serial(server.port, trusting(ca))
        write(settings, ca.issue_cert("localhost"))
        async with asyncio.timeout(60):
            while await serial(server.port, trusting(ca)) == first:
                await asyncio.sleep(0.1)


async def test_half_a_renewal_leaves_the_old_certificate(settings: TlsSettings, ca: trustme.CA) -> None:
    now = [0.0]
    tls = Tls(settings, clock=lambda: now[0])
    before = tls._current
    ca.issue_cert("localhost").private_key_pem.write_to_path(settings.key)
    now[0] = 5.0
    tls._refresh()
    assert tls._current is before


def test_key_and_certificate_that_do_not_belong_together_are_told(settings: TlsSettings, ca: trustme.CA) -> None:
    ca.issue_cert("localhost").private_key_pem.write_to_path(settings.key)
    with pytest.raises(InvalidInput, match="is not the key of"):
        Tls(settings)


def test_a_missing_file_and_one_that_is_no_pem_are_told(settings: TlsSettings) -> None:
    with pytest.raises(InvalidInput, match="cannot be read: no such file"):
        Tls(TlsSettings(settings.certificate.with_name("none.pem"), settings.key))
    settings.certificate.write_text("nonsense")
    with pytest.raises(InvalidInput, match="are no certificate and key in PEM"):
        Tls(settings)
