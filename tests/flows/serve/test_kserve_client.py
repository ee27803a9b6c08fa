"""The clients of KServe's Python SDK, in an interpreter of its own: its pins do not go with ours."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from inferloop.net.http_server import HttpServer
from inferloop.prediction.repository.repository import Repository
from inferloop.prediction.router import Router
from inferloop.registry.registry import Registry
from inferloop.serving.grpc.front_end import GrpcFrontEnd
from inferloop.serving.grpc.transport import GrpcTransport
from inferloop.serving.rest.app import App
from inferloop.serving.services import Services
from support.conformance import write_repository

CALLS = """
import asyncio, sys
import numpy as np
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, RESTConfig

X = np.array([[1, 2], [3, 4]], np.float32)


def request(model, binary):
    tensor = InferInput(name="x", shape=[2, 2], datatype="FP32")
    tensor.set_data_from_numpy(X, binary_data=binary)
    return InferRequest(model_name=model, infer_inputs=[tensor])


async def refused(asking):
    try:
        await asking
    except Exception as error:
        assert "Request for unknown model: 'nope' is not found" in str(error), error
    else:
        raise AssertionError("an unknown model was answered")


async def rest(url):
    async with InferenceRESTClient(RESTConfig(protocol="v2", retries=0, timeout=60)) as client:
        assert await client.is_server_live(url)
        assert await client.is_server_ready(url)
        assert await client.is_model_ready(url, model_name="echo")
        for binary in (False, True):
            answer = await client.infer(url, request("echo", binary), model_name="echo")
            assert np.array_equal(answer.outputs[0].as_numpy(), X)
        await refused(client.infer(url, request("nope", True), model_name="nope"))


async def grpc(url):
    async with InferenceGRPCClient(url, timeout=60) as client:
        assert await client.is_server_live()
        assert await client.is_server_ready()
        assert await client.is_model_ready(model_name="echo")
        for binary in (False, True):
            answer = await client.infer(request("echo", binary))
            assert np.array_equal(answer.outputs[0].as_numpy(), X)
        await refused(client.infer(request("nope", True)))


asyncio.run({"rest": rest, "grpc": grpc}[sys.argv[1]](sys.argv[2]))
"""


def interpreter() -> str:
    """A Python that has kserve."""
    named = os.environ.get("INFERLOOP_KSERVE_PYTHON", "")
    if named:
        return named
    if importlib.util.find_spec("kserve") is not None:
        return sys.executable
    pytest.skip("no kserve: python -m venv VENV && VENV/bin/pip install kserve, INFERLOOP_KSERVE_PYTHON=VENV/bin/python")


@pytest.fixture
async def services(tmp_path: Path) -> AsyncIterator[Services]:
    with Registry(tmp_path / "registry") as registry, Repository(write_repository(tmp_path)) as repository:
        async with Router(registry, repository=repository) as router:
            await router.open(["echo"])
            yield Services(router)


async def run(wire: str, url: str) -> None:
    process = await asyncio.create_subprocess_exec(
        interpreter(), "-c", CALLS, wire, url, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()


async def test_its_rest_client_is_answered(services: Services) -> None:
    async with HttpServer(App(services).handle, port=0) as server:
        await run("rest", f"http://127.0.0.1:{server.port}")


async def test_its_grpc_client_is_answered(services: Services, transport: GrpcTransport) -> None:
    async with GrpcFrontEnd(services, port=0, transport=transport) as front_end:
        await run("grpc", f"127.0.0.1:{front_end.port}")
