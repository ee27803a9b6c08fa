"""tritonclient over HTTP, blocking and asyncio, unchanged: every call that needs no GPU."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest

from inferloop.net.http_server import HttpServer
from inferloop.prediction.repository.repository import Control, Repository
from inferloop.prediction.router import Router
from inferloop.registry.registry import Registry
from inferloop.serving.operations.shared_memory import Regions
from inferloop.serving.rest.app import App
from inferloop.serving.services import Services
from support.conformance import MODELS, write_repository

REASON = "tritonclient without its http part: pip install 'tritonclient[http]'"
X = np.array([[1.0, 2.0], [3.0, 4.0]], np.float32)


@pytest.fixture
async def port(tmp_path: Path) -> AsyncIterator[int]:
    repository = Repository(write_repository(tmp_path), control=Control.EXPLICIT)
    with Registry(tmp_path / "registry") as registry, repository:
        async with Router(registry, repository=repository, poll_s=0.02) as router:
            for model in MODELS:
                await router.load(model)
            regions = Regions(allowed=True)
            async with HttpServer(App(Services(router, regions=regions)).handle, port=0) as server:
                yield server.port
            regions.close()


@pytest.fixture
def http() -> Any:
    return pytest.importorskip("tritonclient.http", reason=REASON, exc_type=Exception)


async def in_thread(port: int, http: Any, calls: Any) -> None:
    def run() -> None:
        with contextlib.closing(http.InferenceServerClient(f"127.0.0.1:{port}")) as client:
            calls(client)

    await asyncio.to_thread(run)


def given(http: Any, array: Any = X, *, binary: bool = True, name: str = "x") -> Any:
    tensor = http.InferInput(name, array.shape, "FP32")
    tensor.set_data_from_numpy(array, binary_data=binary)
    return tensor


async def test_status_and_metadata(port: int, http: Any) -> None:
    def calls(client: Any) -> None:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("echo")
        assert client.is_model_ready("echo", "1")
        assert not client.is_model_ready("nope")
        assert "statistics" in client.get_server_metadata()["extensions"]
        assert client.get_model_metadata("echo")["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}]
        config = client.get_model_config("echo", "1")
        assert (config["max_batch_size"], config["input"][0]["dims"]) == (64, [2])
        assert client.get_model_config("rep")["model_transaction_policy"] == {"decoupled": True}
        steps = client.get_model_config("ens")["ensemble_scheduling"]["step"]
        assert [step["model_name"] for step in steps] == ["echo", "echo"]

    await in_thread(port, http, calls)


async def test_infer_in_every_form(port: int, http: Any) -> None:
    def calls(client: Any) -> None:
        for binary in (True, False):
            for outputs in (None, [http.InferRequestedOutput("y", binary_data=binary)]):
                for packed in (None, "gzip", "deflate"):
                    for answered in (None, "gzip", "deflate"):
                        result = client.infer(
                            "echo",
                            [given(http, binary=binary)],
                            outputs=outputs,
                            request_id="7",
                            request_compression_algorithm=packed,
                            response_compression_algorithm=answered,
                        )
                        np.testing.assert_array_equal(result.as_numpy("y"), X)
                        assert result.get_response()["id"] == "7"

    await in_thread(port, http, calls)


async def test_parameters_sequences_and_priorities_are_taken(port: int, http: Any) -> None:
    def calls(client: Any) -> None:
        result = client.infer("echo", [given(http)], priority=1, timeout=60_000_000, parameters={"mine": "x", "n": 5})
        np.testing.assert_array_equal(result.as_numpy("y"), X)
        with pytest.raises(http.InferenceServerException, match="504"):
            client.infer("echo", [given(http)], timeout=1)

    await in_thread(port, http, calls)


async def test_classes_and_ensembles(port: int, http: Any) -> None:
    def calls(client: Any) -> None:
        asked = [http.InferRequestedOutput("y", binary_data=False, class_count=2)]
        result = client.infer("echo", [given(http)], outputs=asked)
        assert result.get_response()["outputs"][0]["data"] == ["2.000000:1", "1.000000:0", "4.000000:1", "3.000000:0"]
        asked = [http.InferRequestedOutput("y", binary_data=True, class_count=1)]
        assert client.infer("echo", [given(http)], outputs=asked).as_numpy("y").tolist() == [[b"2.000000:1"], [b"4.000000:1"]]
        result = client.infer("ens", [given(http, name="a")])
        np.testing.assert_array_equal(result.as_numpy("b"), X)

    await in_thread(port, http, calls)


async def test_statistics_count_requests_and_rows(port: int, http: Any) -> None:
    def calls(client: Any) -> None:
        for _ in range(3):
            client.infer("echo", [given(http)])
        (stats,) = client.get_inference_statistics("echo", "1")["model_stats"]
        assert (stats["inference_count"], stats["inference_stats"]["success"]["count"]) == (6, 3)
        assert {entry["name"] for entry in client.get_inference_statistics()["model_stats"]} == set(MODELS)
        with pytest.raises(http.InferenceServerException, match="requested model 'nope' is not available"):
            client.get_inference_statistics("nope")

    await in_thread(port, http, calls)


async def test_the_repository_is_listed_and_changed(port: int, http: Any) -> None:
    def calls(client: Any) -> None:
        assert {entry["name"]: entry["state"] for entry in client.get_model_repository_index()} == dict.fromkeys(MODELS, "READY")
        client.unload_model("rep")
        with pytest.raises(http.InferenceServerException, match="has no available versions"):
            client.infer("rep", [given(http, X[0])])
        client.load_model("rep")
        assert client.is_model_ready("rep")
        with pytest.raises(http.InferenceServerException):
            client.load_model("nope")

    await in_thread(port, http, calls)


async def test_settings_of_traces_and_logs(port: int, http: Any) -> None:
    def calls(client: Any) -> None:
        assert client.get_trace_settings()["trace_rate"] == "1000"
        assert client.update_trace_settings(settings={"trace_rate": "500"})["trace_rate"] == "500"
        assert client.get_trace_settings("echo")["trace_rate"] == "500"
        client.update_trace_settings(settings={"trace_rate": None})
        before = client.get_log_settings()
        assert client.update_log_settings({"log_verbose_level": 0}).keys() == before.keys()

    await in_thread(port, http, calls)


@pytest.fixture
def memory() -> Iterator[Any]:
    shm: Any = pytest.importorskip("tritonclient.utils.shared_memory", reason=REASON, exc_type=Exception)
    handles = [shm.create_shared_memory_region(name, f"/test_{name}_{id(shm)}", 16) for name in ("in", "out")]
    yield shm, handles
    for handle in handles:
        shm.destroy_shared_memory_region(handle)


async def test_tensors_in_shared_memory(port: int, http: Any, memory: Any) -> None:
    shm, (source, target) = memory

    def calls(client: Any) -> None:
        assert client.get_system_shared_memory_status() == []
        shm.set_shared_memory_region(source, [X])
        client.register_system_shared_memory("in", f"/test_in_{id(shm)}", 16)
        client.register_system_shared_memory("out", f"/test_out_{id(shm)}", 16)
        assert {region["name"] for region in client.get_system_shared_memory_status()} == {"in", "out"}
        tensor = http.InferInput("x", X.shape, "FP32")
        tensor.set_shared_memory("in", 16)
        asked = http.InferRequestedOutput("y", binary_data=True)
        asked.set_shared_memory("out", 16)
        result = client.infer("echo", [tensor], outputs=[asked])
        assert result.get_output("y")["parameters"]["shared_memory_region"] == "out"
        np.testing.assert_array_equal(shm.get_contents_as_numpy(target, np.float32, [2, 2]), X)
        client.unregister_system_shared_memory("in")
        assert [region["name"] for region in client.get_system_shared_memory_status()] == ["out"]
        client.unregister_system_shared_memory()
        with pytest.raises(http.InferenceServerException, match="Unable to find"):
            client.infer("echo", [tensor])
        assert client.get_cuda_shared_memory_status() == []
        client.unregister_cuda_shared_memory()

    await in_thread(port, http, calls)


async def test_the_asyncio_client(port: int) -> None:
    aio: Any = pytest.importorskip("tritonclient.http.aio", reason=REASON, exc_type=Exception)
    async with aio.InferenceServerClient(f"127.0.0.1:{port}") as client:
        assert await client.is_server_ready()
        assert (await client.get_model_metadata("ens"))["platform"] == "ensemble"
        assert (await client.get_model_config("echo"))["name"] == "echo"
        for binary in (True, False):
            asked = [aio.InferRequestedOutput("y", binary_data=binary)]
            result = await client.infer("echo", [given(aio, binary=binary)], outputs=asked, request_compression_algorithm="gzip")
            np.testing.assert_array_equal(result.as_numpy("y"), X)
        assert (await client.get_inference_statistics("echo"))["model_stats"][0]["inference_count"] == 4
        assert len(await client.get_model_repository_index()) == len(MODELS)
        assert (await client.get_trace_settings())["trace_mode"] == "triton"
        assert "log_info" in await client.get_log_settings()
        assert await client.get_system_shared_memory_status() == []


async def test_the_lines_that_people_type(port: int) -> None:
    """No Content-Type, as curl's `-d` and tritonclient have none that tells."""
    body = b'{"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}]}'
    async with aiohttp.ClientSession() as session:
        for kind in ("application/x-www-form-urlencoded", "text/plain", "image/png", ""):
            url = f"http://127.0.0.1:{port}/v2/models/echo/infer"
            async with session.post(url, data=body, headers={"Content-Type": kind}) as response:
                assert (response.status, (await response.json())["outputs"][0]["data"]) == (200, [1.0, 2.0])


async def test_much_json_and_little_json_on_one_connection_are_answered_in_their_order(port: int) -> None:
    """What is large is read and written in threads; a small request behind it must not overtake it."""
    bodies = []
    for rows, number in ((1, 1.0), (60, 2.0), (1, 3.0)):
        data = [number, number] * rows
        padding = " " * (120_000 if rows > 1 else 0)
        tensor = {"name": "x", "shape": [rows, 2], "datatype": "FP32", "data": data}
        bodies.append(json.dumps({"inputs": [tensor], "parameters": {"mine": padding}}).encode())
    head = b"POST /v2/models/echo/infer HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"".join(head % len(body) + body for body in bodies))
    found = []
    for _ in bodies:
        size = int((await reader.readuntil(b"\r\n\r\n")).lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        found.append(json.loads(await reader.readexactly(size))["outputs"][0])
    writer.close()
    assert [(output["shape"], output["data"][0]) for output in found] == [([1, 2], 1.0), ([60, 2], 2.0), ([1, 2], 3.0)]
