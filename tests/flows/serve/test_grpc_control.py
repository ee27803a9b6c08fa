"""Health, reflection, status and repository over every transport, asked by clients that others wrote."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from inferloop.serving.grpc.front_end import GrpcFrontEnd
from inferloop.serving.grpc.messages import message_class
from inferloop.serving.grpc.transport import GrpcTransport
from inferloop.serving.key_file import create
from inferloop.serving.keys import Keys
from inferloop.serving.scopes import Scope
from inferloop.serving.services import Services
from support.grpc_clients import X, tensor
from support.serving import Running, row, serving

SERVICES = [
    "inference.GRPCInferenceService",
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
]


async def test_live_and_ready_are_told(client) -> None:
    live, ready = await asyncio.to_thread(client.is_server_live), await asyncio.to_thread(client.is_server_ready)
    models = [await asyncio.to_thread(client.is_model_ready, *name) for name in (("linear",), ("linear", "1"), ("linear", "9"))]
    assert (live, ready, models) == (True, True, [True, True, False])
    assert await asyncio.to_thread(client.is_model_ready, "nope") is False


async def test_a_server_that_stops_is_not_ready(running: Running, client) -> None:
    running.app.stop_accepting()
    assert await asyncio.to_thread(client.is_server_ready) is False


async def test_health_is_checked_by_the_standard_client(running: Running) -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{running.grpc.port}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for service in ("", SERVICES[0]):
            answer = await stub.Check(health_pb2.HealthCheckRequest(service=service))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.RpcError) as caught:
            await stub.Check(health_pb2.HealthCheckRequest(service="other"))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_health_is_watched_until_the_server_stops(running: Running) -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{running.grpc.port}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        unknown = stub.Watch(health_pb2.HealthCheckRequest(service="other"))
        watch = stub.Watch(health_pb2.HealthCheckRequest())
        first, other = await watch.read(), await unknown.read()
        running.app.stop_accepting()
        last, end = await watch.read(), await watch.read()
    assert (first.status, other.status) == (
        health_pb2.HealthCheckResponse.SERVING,
        health_pb2.HealthCheckResponse.SERVICE_UNKNOWN,
    )
    assert (last.status, end) == (health_pb2.HealthCheckResponse.NOT_SERVING, grpc.aio.EOF)


def reflected(port: int) -> tuple[list[str], object]:
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        pool = DescriptorPool(database)
        service = pool.FindServiceByName(SERVICES[0])
        request = GetMessageClass(pool.FindMessageTypeByName("inference.ModelReadyRequest"))
        response = GetMessageClass(pool.FindMessageTypeByName("inference.ModelReadyResponse"))
        ask = channel.unary_unary(f"/{service.full_name}/ModelReady", request.SerializeToString, response.FromString)
        return list(database.get_services()), (len(service.methods), ask(request(name="linear"), timeout=60).ready)


async def test_a_client_without_descriptors_finds_services_and_messages_by_reflection(running: Running) -> None:
    services, found = await asyncio.to_thread(reflected, running.grpc.port)
    assert (services, found) == (SERVICES, (20, True))


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_reflection_answers_every_kind_of_question(running: Running, version: str) -> None:
    asked = message_class(f"grpc.reflection.{version}.ServerReflectionRequest")
    given = message_class(f"grpc.reflection.{version}.ServerReflectionResponse")
    questions = [
        asked(list_services=""),
        asked(file_by_filename="inference/service.proto"),
        asked(file_containing_symbol="inference.ModelConfig"),
        asked(file_containing_symbol="inference.Nothing"),
        asked(file_by_filename="nothing.proto"),
        asked(all_extension_numbers_of_type="inference.ModelConfig"),
        asked(all_extension_numbers_of_type="inference.Nothing"),
        asked(file_containing_extension={"containing_type": "inference.ModelConfig", "extension_number": 9}),
        asked(),
    ]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{running.grpc.port}") as channel:
        path = f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo"
        call = channel.stream_stream(path, asked.SerializeToString, given.FromString)()
        for question in questions:
            await call.write(question)
        await call.done_writing()
        answers = [answer async for answer in call]
    kinds = [answer.WhichOneof("message_response") for answer in answers]
    assert kinds == [
        "list_services_response",
        *["file_descriptor_response"] * 2,
        *["error_response"] * 2,
        "all_extension_numbers_response",
        *["error_response"] * 3,
    ]
    assert len(answers[1].file_descriptor_response.file_descriptor_proto) == 8
    assert [answer.error_response.error_code for answer in answers if answer.HasField("error_response")] == [5, 5, 5, 5, 3]


async def test_the_repository_is_listed(client) -> None:
    index = await asyncio.to_thread(client.get_model_repository_index)
    assert [(model.name, model.version, model.state) for model in index.models] == [
        ("linear", "1", "READY"),
        ("mlp", "1", "READY"),
    ]


async def test_metadata_config_and_statistics_are_those_of_rest(running: Running, client) -> None:
    server = await asyncio.to_thread(client.get_server_metadata, as_json=True)
    model = await asyncio.to_thread(client.get_model_metadata, "linear", as_json=True)
    config = (await asyncio.to_thread(client.get_model_config, "linear")).config
    await running.infer("linear", row(*X[0].tolist()))
    stats = (await asyncio.to_thread(client.get_inference_statistics, "linear")).model_stats
    rest = [(await running.ask("GET", path)).json for path in ("/v2", "/v2/models/linear", "/v2/models/linear/config")]
    assert server == rest[0]
    assert (model["name"], model["versions"], model["platform"]) == ("linear", ["1"], rest[1]["platform"])
    assert model["inputs"] == [{"name": "x", "datatype": "FP32", "shape": ["-1", "4"]}]
    assert (config.name, config.max_batch_size, list(config.input[0].dims)) == ("linear", rest[2]["max_batch_size"], [4])
    assert [(entry.name, entry.version, entry.inference_count) for entry in stats] == [("linear", "1", 1)]
    assert len((await asyncio.to_thread(client.get_inference_statistics)).model_stats) == 2


async def test_unknown_models_are_told_by_every_call(client) -> None:
    calls = (client.get_model_metadata, client.get_model_config, client.get_inference_statistics)
    for call in calls:
        with pytest.raises(triton.InferenceServerException, match="nope"):
            await asyncio.to_thread(call, "nope")


async def test_log_and_trace_settings_are_read_and_changed(running: Running, client) -> None:
    before = await asyncio.to_thread(client.get_log_settings, as_json=True)
    changed = await asyncio.to_thread(client.update_log_settings, {"log_verbose_level": 1}, as_json=True)
    back = await asyncio.to_thread(client.update_log_settings, {"log_verbose_level": 0}, as_json=True)
    assert set(before["settings"]) == set((await running.ask("GET", "/v2/logging")).json)
    assert changed["settings"]["log_verbose_level"]["uint32_param"] == 1
    assert back["settings"]["log_info"] == changed["settings"]["log_info"]
    trace = await asyncio.to_thread(client.update_trace_settings, None, {"trace_rate": "500"}, as_json=True)
    assert trace["settings"]["trace_rate"] == {"value": ["500"]}
    assert (await running.ask("GET", "/v2/models/linear/trace/setting")).json["trace_rate"] == "500"
    reset = await asyncio.to_thread(client.update_trace_settings, None, {"trace_rate": None}, as_json=True)
    assert reset["settings"]["trace_rate"] != {"value": ["500"]}
    with pytest.raises(triton.InferenceServerException, match="no_such"):
        await asyncio.to_thread(client.update_trace_settings, None, {"no_such": "1"})


async def test_models_are_unloaded_and_loaded_again(client) -> None:
    await asyncio.to_thread(client.unload_model, "mlp")
    gone = await asyncio.to_thread(client.is_model_ready, "mlp")
    await asyncio.to_thread(client.load_model, "mlp")
    assert (gone, await asyncio.to_thread(client.is_model_ready, "mlp")) == (False, True)
    with pytest.raises(triton.InferenceServerException):
        await asyncio.to_thread(client.load_model, "nope")


async def test_shared_memory_is_off_until_it_is_allowed(client) -> None:
    assert list((await asyncio.to_thread(client.get_system_shared_memory_status)).regions) == []
    assert list((await asyncio.to_thread(client.get_cuda_shared_memory_status)).regions) == []
    with pytest.raises(triton.InferenceServerException, match="shared memory of clients is off"):
        await asyncio.to_thread(client.register_system_shared_memory, "r", "/inferloop-nothing", 16)
    with pytest.raises(triton.InferenceServerException, match="not offered"):
        await asyncio.to_thread(client.register_cuda_shared_memory, "r", b"aGFuZGxl", 0, 16)
    await asyncio.to_thread(client.unregister_system_shared_memory)
    await asyncio.to_thread(client.unregister_cuda_shared_memory)


async def test_a_server_with_keys_asks_for_them(tmp_path: Path, bundles, transport: GrpcTransport) -> None:
    keys = tmp_path / "keys.json"
    secret, _ = create(keys, [Scope.INFER])
    async with serving(tmp_path, *bundles) as running:
        services = Services(running.router, keys=Keys(keys))
        async with (
            GrpcFrontEnd(services, port=0, transport=transport) as front_end,
            triton_aio.InferenceServerClient(f"127.0.0.1:{front_end.port}") as client,
        ):
            key = {"authorization": f"Bearer {secret}"}
            live = await client.is_server_live()
            answer = await client.infer("linear", [tensor(X)], headers=key)
            codes = []
            for ask in (client.infer("linear", [tensor(X)]), client.unload_model("mlp", headers=key)):
                with pytest.raises(triton.InferenceServerException) as caught:
                    await ask
                codes.append(caught.value.status())
    assert (live, answer.as_numpy("scores").shape) == (True, (1, 3))
    assert codes == ["StatusCode.UNAUTHENTICATED", "StatusCode.PERMISSION_DENIED"]
