"""A running server that is watched: metrics, traces, access log, over REST on loopback."""

import asyncio
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import aiohttp
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families
from tritonclient.utils import InferenceServerException

from inferloop.registry.registry import Registry
from inferloop.serving.grpc.transport import GrpcTransport
from inferloop.serving.observation import ObservationSettings
from inferloop.serving.server import ServeSettings, serve
from support import bundles
from support.serving import row


class Watched:
    """A server with observation settings, and a client."""

    def __init__(self, folder, *, transport=GrpcTransport.HTTP2, **observation):
        self.folder = folder
        noted = ObservationSettings(**observation)
        self.settings = ServeSettings(port=0, grpc_port=0, grpc_transport=transport, observation=noted)

    async def __aenter__(self):
        self.registry = Registry(self.folder / "registry")
        self.registry.register(bundles.linear(self.folder / "bundle"), alias="champion")
        ready, self.stop = asyncio.get_running_loop().create_future(), asyncio.Event()
        self.task = asyncio.create_task(
            serve(["linear"], registry=self.registry, settings=self.settings, on_ready=ready.set_result, stop=self.stop)
        )
        await asyncio.wait([ready, self.task], timeout=60, return_when=asyncio.FIRST_COMPLETED)
        if self.task.done():
            await self.task
        self.served = ready.result()
        self.session = aiohttp.ClientSession()
        return self

    async def ask(self, method, url, body=None, **headers):
        data = None if body is None else json.dumps(body)
        address = url if url.startswith("http") else self.served.url + url
        async with self.session.request(method, address, data=data, headers=headers) as response:
            return response.status, response.headers.copy(), await response.text()

    async def infer(self, **headers):
        return await self.ask("POST", "/v2/models/linear/infer", row(1, 2, 3, 4), **headers)

    async def __aexit__(self, *_):
        await self.session.close()
        self.stop.set()
        await asyncio.wait_for(self.task, 60)
        self.registry.close()


def counted(text, name, **labels):
    """The sum of the samples of that name with those labels."""
    families = text_string_to_metric_families(text)
    samples = [sample for family in families for sample in family.samples if sample.name in {name, f"{name}_total"}]
    return sum(sample.value for sample in samples if labels.items() <= sample.labels.items())


async def test_a_scrape_tells_what_the_server_did(tmp_path):
    async with Watched(tmp_path, metrics_port=0) as server:
        _, _, before = await server.ask("GET", server.served.metrics)
        assert counted(before, "nv_inference_request_success", model="linear", version="1") == 0
        for _ in range(3):
            assert (await server.infer())[0] == 200
        assert (await server.ask("POST", "/v2/models/linear/infer", row(1, 2)))[0] == 400
        for url in (server.served.metrics, "/metrics"):
            status, headers, text = await server.ask("GET", url)
            assert (status, headers["Content-Type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
            assert counted(text, "nv_inference_request_success", model="linear") == 3
            assert counted(text, "nv_inference_request_failure", model="linear", reason="OTHER") == 1
            assert counted(text, "nv_inference_count", model="linear") == 3
            assert counted(text, "nv_inference_request_duration_us", model="linear") > 0
            assert counted(text, "inferloop_request_seconds_bucket", model="linear", le="+Inf") == 3
            assert counted(text, "inferloop_queue_seconds_count", model="linear") == 3
        assert (await server.ask("GET", server.served.metrics.replace("/metrics", "/v2")))[0] == 404


async def test_the_access_log_has_a_line_for_each_request_and_nothing_of_what_was_in_it(tmp_path):
    log = tmp_path / "access.jsonl"
    async with Watched(tmp_path, access_log=str(log)) as server:
        _, named, _ = await server.infer(**{"X-Request-Id": "mine-1"})
        _, made, _ = await server.ask("GET", "/v2/models/nobody")
    first, second = map(json.loads, log.read_text().splitlines())
    assert first["request_id"] == named["X-Request-Id"] == "mine-1"
    assert first["prediction_id"] == named["Inferloop-Prediction-Id"]
    assert (first["method"], first["path"], first["status"]) == ("POST", "/v2/models/linear/infer", 200)
    assert first["model"] == "linear"
    assert first["peer"].startswith("127.0.0.1:")
    assert first["bytes_out"] == int(named["Content-Length"])
    assert (second["status"], second["request_id"]) == (404, made["X-Request-Id"])
    assert "FP32" not in log.read_text()


async def test_calls_over_grpc_have_lines_of_the_same_kind(tmp_path):
    client = pytest.importorskip("tritonclient.grpc.aio", reason="pip install 'tritonclient[grpc]'")
    log = tmp_path / "access.jsonl"
    async with Watched(tmp_path, access_log=str(log)) as server, client.InferenceServerClient(server.served.grpc) as asked:
        tensor = client.InferInput("x", [1, 4], "FP32")
        tensor.set_data_from_numpy(np.zeros((1, 4), np.float32))
        await asked.infer("linear", [tensor], headers={"x-request-id": "mine-3"})
        with pytest.raises(InferenceServerException):
            await asked.get_model_metadata("nobody")
    first, second = (json.loads(line) for line in log.read_text().splitlines() if "ModelInfer" in line or "ModelMetadata" in line)
    assert (first["method"], first["status"], first["model"]) == ("grpc", "OK", "linear")
    assert first["request_id"] == "mine-3"
    assert first["prediction_id"]
    assert min(first["bytes_in"], first["bytes_out"]) > 0
    assert second["status"] == "NOT_FOUND"


async def test_without_an_access_log_only_an_id_that_was_sent_comes_back(tmp_path):
    async with Watched(tmp_path) as server:
        _, silent, _ = await server.infer()
        _, named, _ = await server.infer(**{"X-Request-Id": "mine-2"})
    assert "X-Request-Id" not in silent
    assert named["X-Request-Id"] == "mine-2"


async def test_a_trace_file_shows_where_a_request_was(tmp_path):
    async with Watched(tmp_path, trace_folder=tmp_path / "traces") as server:
        patch = {"trace_level": ["TIMESTAMPS"], "trace_rate": "1", "trace_count": "1"}
        status, _, text = await server.ask("POST", "/v2/models/linear/trace/setting", patch)
        assert (status, json.loads(text)["trace_rate"]) == (200, "1")
        assert json.loads((await server.ask("GET", "/v2/trace/setting"))[2])["trace_level"] == ["OFF"]
        for _ in range(2):
            await server.infer()
    head, stamps = json.loads((tmp_path / "traces" / "trace.json").read_text())
    assert head == {"id": 1, "model_name": "linear", "model_version": 1}
    times = {stamp["name"]: stamp["ns"] for stamp in stamps["timestamps"]}
    assert list(times) == ["REQUEST_START", "QUEUE_START", "COMPUTE_START", "COMPUTE_END", "REQUEST_END"]
    assert list(times.values()) == sorted(times.values())


async def test_values_without_tensors_are_traced_like_tensors_whole_or_as_events(tmp_path):
    async with Watched(tmp_path, trace_folder=tmp_path / "traces") as server:
        await server.ask("POST", "/v2/trace/setting", {"trace_level": ["TIMESTAMPS"], "trace_rate": "1"})
        for path, number in (("generate", 4), ("generate_stream", 4), ("generate", 3)):
            body = {"x": [[0.0] * number], "id": f"{path}-{number}"}
            status, _, _ = await server.ask("POST", f"/v2/models/linear/{path}", body)
            assert status == (200 if number == 4 else 400)
    items = json.loads((tmp_path / "traces" / "trace.json").read_text())
    heads, stamps = items[::2], [[stamp["name"] for stamp in item["timestamps"]] for item in items[1::2]]
    assert [head["request_id"] for head in heads] == ["generate-4", "generate_stream-4", "generate-3"]
    assert [head["model_version"] for head in heads] == [1, 1, 0], "nobody answered the last one"
    whole = ["REQUEST_START", "QUEUE_START", "COMPUTE_START", "COMPUTE_END", "REQUEST_END"]
    assert stamps == [whole, whole, ["REQUEST_START", "REQUEST_END"]]


async def test_unknown_settings_are_client_errors(tmp_path):
    async with Watched(tmp_path) as server:
        for path in ("/v2/trace/setting", "/v2/models/linear/trace/setting", "/v2/logging"):
            status, _, text = await server.ask("POST", path, {"zz": "1"})
            assert status == 400
            assert "zz" in json.loads(text)["error"]
        assert (await server.ask("GET", "/v2/models/nobody/trace/setting"))[0] == 404
        assert json.loads((await server.ask("GET", "/v2/logging"))[2])["log_format"] == "default"


@pytest.fixture
def collector():
    """An OTLP/HTTP receiver on a free port: the spans that it got, and its address."""
    service = pytest.importorskip(
        "opentelemetry.proto.collector.trace.v1.trace_service_pb2", reason="pip install 'inferloop[otel]'"
    )
    found = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            asked = service.ExportTraceServiceRequest.FromString(body)
            found.extend(span for part in asked.resource_spans for scope in part.scope_spans for span in scope.spans)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Receiver)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield found, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


async def test_spans_reach_a_collector_and_continue_the_caller_s_trace(tmp_path, collector):
    found, endpoint = collector
    async with Watched(tmp_path, otel_endpoint=endpoint) as server:
        await server.infer(traceparent=f"00-{'ab' * 16}-{'cd' * 8}-01")
    spans = {span.name: span for span in found}
    assert set(spans) == {"inferloop.request", "inferloop.queue", "inferloop.compute"}
    assert {span.trace_id.hex() for span in found} == {"ab" * 16}
    assert spans["inferloop.request"].parent_span_id.hex() == "cd" * 8
    assert spans["inferloop.compute"].parent_span_id == spans["inferloop.request"].span_id
    assert spans["inferloop.compute"].end_time_unix_nano >= spans["inferloop.compute"].start_time_unix_nano > 0


@pytest.mark.parametrize("transport", list(GrpcTransport))
@pytest.mark.parametrize("way", ["call", "stream", "generate"])
async def test_a_span_continues_the_trace_whichever_way_the_request_came(tmp_path, collector, transport, way):
    found, endpoint = collector
    client = pytest.importorskip("tritonclient.grpc.aio", reason="pip install 'tritonclient[grpc]'")
    headers = {"traceparent": f"00-{'12' * 16}-{'34' * 8}-01"}
    tensor = client.InferInput("x", [1, 4], "FP32")
    tensor.set_data_from_numpy(np.zeros((1, 4), np.float32))

    async def one():
        yield {"model_name": "linear", "inputs": [tensor]}

    watched = Watched(tmp_path, transport=transport, otel_endpoint=endpoint)
    async with watched as server, client.InferenceServerClient(server.served.grpc) as asked:
        if way == "call":
            await asked.infer("linear", [tensor], headers=headers)
        elif way == "stream":
            async for _, error in asked.stream_infer(one(), headers=headers):
                assert error is None
        else:
            await server.ask("POST", "/v2/models/linear/generate", {"x": [0.0] * 4}, **headers)
    spans = {span.name: span for span in found}
    assert set(spans) == {"inferloop.request", "inferloop.queue", "inferloop.compute"}
    assert {span.trace_id.hex() for span in found} == {"12" * 16}
    assert spans["inferloop.request"].parent_span_id.hex() == "34" * 8
