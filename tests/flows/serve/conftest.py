"""gRPC servers for the tests of this folder: the same tests over every transport."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from inferloop.core.bundle import Bundle
from inferloop.serving.grpc.transport import GrpcTransport, is_installed
from support.bundles import linear, mlp
from support.serving import Running, serving


@pytest.fixture(params=list(GrpcTransport))
def transport(request: pytest.FixtureRequest) -> GrpcTransport:
    if not is_installed(request.param):
        pytest.skip("no grpcio: pip install 'inferloop[grpc]'")
    return request.param


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> list[Bundle]:
    folder = tmp_path_factory.mktemp("bundles")
    return [linear(folder / "linear"), mlp(folder / "mlp")]


@pytest.fixture
async def running(tmp_path: Path, bundles: list[Bundle], transport: GrpcTransport) -> AsyncIterator[Running]:
    async with serving(tmp_path, *bundles, grpc=transport) as server:
        yield server


@pytest.fixture
def client(running: Running) -> Iterator[object]:
    """tritonclient's synchronous client; call it in a thread: `await asyncio.to_thread(client.infer, ...)`."""
    triton = pytest.importorskip("tritonclient.grpc", reason="no tritonclient: pip install 'inferloop[dev]'")
    with triton.InferenceServerClient(f"127.0.0.1:{running.grpc.port}") as opened:
        yield opened
