"""Keys and TLS together, for REST and gRPC, as `inferloop serve` puts them together."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import numpy as np
import pytest
import trustme

from inferloop.client.client import Client
from inferloop.core.errors import InvalidInput, Unauthorized
from inferloop.net.tls import TlsSettings
from inferloop.registry.registry import Registry
from inferloop.serving.key_file import create
from inferloop.serving.scopes import Scope
from inferloop.serving.server import Served, ServeSettings, serve
from support.bundles import linear
from support.serving import row, serving


@pytest.fixture
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def tls(tmp_path: Path, ca: trustme.CA) -> TlsSettings:
    leaf = ca.issue_cert("localhost")
    leaf.private_key_pem.write_to_path(tmp_path / "server.key")
    leaf.cert_chain_pems[0].write_to_path(tmp_path / "server.pem")
    return TlsSettings(tmp_path / "server.pem", tmp_path / "server.key")


@asynccontextmanager
async def started(folder: Path, settings: ServeSettings) -> AsyncIterator[Served]:
    ready: asyncio.Future[Served] = asyncio.get_running_loop().create_future()
    stop = asyncio.Event()
    with Registry(folder / "registry") as registry:
        bundle = linear(folder / "linear")
        server = asyncio.create_task(
            serve([str(bundle.path)], registry=registry, settings=settings, on_ready=ready.set_result, stop=stop)
        )
        await asyncio.wait([server, ready], return_when=asyncio.FIRST_COMPLETED, timeout=60)
        try:
            yield ready.result()
        finally:
            stop.set()
            await server


async def test_rest_over_tls_with_a_key(tmp_path: Path, ca: trustme.CA, tls: TlsSettings) -> None:
    secret, _ = create(tmp_path / "keys.json", [Scope.INFER])
    context = ssl.create_default_context()
    ca.configure_trust(context)
    settings = ServeSettings(port=0, keys=tmp_path / "keys.json", tls=tls)
    async with started(tmp_path, settings) as served, aiohttp.ClientSession() as session:
        assert served.url.startswith("https://")
        url = served.url.replace("127.0.0.1", "localhost") + "/v2/models/linear/infer"
        body = row(0.5, -1.0, 2.0, 0.25)
        async with session.post(url, json=body, ssl=context) as reply:
            assert reply.status == 401
        async with session.post(url, json=body, ssl=context, headers={"Authorization": f"Bearer {secret}"}) as reply:
            assert reply.status == 200


async def test_our_client_takes_a_key_and_a_ca(tmp_path: Path, ca: trustme.CA, tls: TlsSettings) -> None:
    secret, _ = create(tmp_path / "keys.json", [Scope.INFER])
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    async with started(tmp_path, ServeSettings(port=0, keys=tmp_path / "keys.json", tls=tls)) as served:
        url = served.url.replace("127.0.0.1", "localhost")
        async with Client(url, key=secret, ca=tmp_path / "ca.pem") as client:
            assert [model["name"] for model in await client.models()] == ["linear"]
        async with Client(url, ca=tmp_path / "ca.pem") as client:
            with pytest.raises(Unauthorized):
                await client.models()


async def test_grpc_over_tls_with_a_key(tmp_path: Path, ca: trustme.CA, tls: TlsSettings) -> None:
    grpc = pytest.importorskip("grpc", reason="grpcio is not installed: pip install 'inferloop[grpc]'")
    secret, _ = create(tmp_path / "keys.json", [Scope.INFER])
    settings = ServeSettings(port=0, grpc_port=0, keys=tmp_path / "keys.json", tls=tls)
    async with started(tmp_path, settings) as served:
        credentials = grpc.ssl_channel_credentials(ca.cert_pem.bytes())
        address = served.grpc.replace("127.0.0.1", "localhost")
        async with grpc.aio.secure_channel(address, credentials) as channel:
            call = channel.unary_unary("/inference.GRPCInferenceService/ServerMetadata")
            assert b"inferloop" in await call(b"", metadata=(("authorization", f"Bearer {secret}"),), timeout=60)
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await call(b"", timeout=60)
            assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
            unload = channel.unary_unary("/inference.GRPCInferenceService/RepositoryModelUnload")
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await unload(b"", metadata=(("authorization", f"Bearer {secret}"),), timeout=60)
            assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_a_public_address_needs_tls_and_keys(tmp_path: Path, tls: TlsSettings) -> None:
    create(tmp_path / "keys.json", [Scope.INFER])
    keys = tmp_path / "keys.json"
    for settings in (ServeSettings("0.0.0.0", 0), ServeSettings("0.0.0.0", 0, keys=keys), ServeSettings("0.0.0.0", 0, tls=tls)):
        with Registry(tmp_path / "registry") as registry, pytest.raises(InvalidInput, match="lacks keys or TLS"):
            await serve(["linear"], registry=registry, settings=settings)
    async with started(tmp_path, ServeSettings("0.0.0.0", 0, keys=keys, tls=tls)) as served:
        assert served.url.startswith("https://0.0.0.0:")


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
async def test_triton_s_client_asks_for_compressed_answers(tmp_path: Path, algorithm: str) -> None:
    http = pytest.importorskip("tritonclient.http.aio", reason="tritonclient is not installed: pip install 'inferloop[dev]'")
    x = np.ones((64, 4), np.float32)
    async with serving(tmp_path, linear(tmp_path / "linear")) as server:
        client = http.InferenceServerClient(f"127.0.0.1:{server.port}")
        asked = http.InferInput("x", list(x.shape), "FP32")
        asked.set_data_from_numpy(x, binary_data=False)
        outputs = [http.InferRequestedOutput("scores", binary_data=False)]
        plain = await client.infer("linear", [asked], outputs=outputs)
        small = await client.infer("linear", [asked], outputs=outputs, response_compression_algorithm=algorithm)
        await client.close()
    np.testing.assert_array_equal(plain.as_numpy("scores"), small.as_numpy("scores"))
