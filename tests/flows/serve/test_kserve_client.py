"""The REST client of KServe's Python SDK, in an interpreter of its own: its pins do not go with ours."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import sys
from pathlib import Path

import pytest

from inferloop.net.http_server import HttpServer
from inferloop.prediction.repository.repository import Repository
from inferloop.prediction.router import Router
from inferloop.registry.registry import Registry
from inferloop.serving.rest.app import App
from inferloop.serving.services import Services
from support.conformance import write_repository

CALLS = """
import asyncio, sys
import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig


async def main(url):
    client = InferenceRESTClient(RESTConfig(protocol="v2", retries=0, timeout=60))
    assert await client.is_server_live(url)
    assert await client.is_server_ready(url)
    assert await client.is_model_ready(url, model_name="echo")
    x = np.array([[1, 2], [3, 4]], np.float32)
    for binary in (False, True):
        tensor = InferInput(name="x", shape=[2, 2], datatype="FP32")
        tensor.set_data_from_numpy(x, binary_data=binary)
        answer = await client.infer(url, InferRequest(model_name="echo", infer_inputs=[tensor]), model_name="echo")
        assert np.array_equal(answer.outputs[0].as_numpy(), x)
    try:
        await client.infer(url, InferRequest(model_name="nope", infer_inputs=[tensor]), model_name="nope")
    except Exception as error:
        assert "Request for unknown model: 'nope' is not found" in str(error), error
    else:
        raise AssertionError("an unknown model was answered")
    await client.close()


asyncio.run(main(sys.argv[1]))
"""


def interpreter() -> str:
    """A Python that has kserve."""
    named = os.environ.get("INFERLOOP_KSERVE_PYTHON", "")
    if named:
        return named
    if importlib.util.find_spec("kserve") is not None:
        return sys.executable
    pytest.skip("no kserve: python -m venv VENV && VENV/bin/pip install kserve, INFERLOOP_KSERVE_PYTHON=VENV/bin/python")


async def test_kserves_client_is_answered(tmp_path: Path) -> None:
    python = interpreter()
    with Registry(tmp_path / "registry") as registry, Repository(write_repository(tmp_path)) as repository:
        async with Router(registry, repository=repository) as router:
            await router.open(["echo"])
            async with HttpServer(App(Services(router)).handle, port=0) as server:
                url = f"http://127.0.0.1:{server.port}"
                process = await asyncio.create_subprocess_exec(
                    python, "-c", CALLS, url, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
                )
                output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
