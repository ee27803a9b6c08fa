"""The descriptors: as compiled, as other clients have them, and apart from theirs."""

from __future__ import annotations

import importlib.util
from importlib.resources import files
from pathlib import Path

import pytest
from google.protobuf import descriptor_pool
from google.protobuf.descriptor_pb2 import FileDescriptorProto

from inferloop.core.errors import InvalidInput
from inferloop.serving.grpc import messages

PROTOS = Path(str(files("inferloop.serving.grpc"))) / "protos"


def described(file) -> FileDescriptorProto:
    description = FileDescriptorProto()
    file.CopyToProto(description)
    return description


def fields(message, prefix=""):
    """Every field of a message and of those inside it: number, type, label, oneof and what it refers to."""
    path = f"{prefix}{message.name}"
    for field in message.field:
        oneof = message.oneof_decl[field.oneof_index].name if field.HasField("oneof_index") else ""
        yield f"{path}.{field.name}", (field.number, field.type, field.label, field.type_name, oneof)
    for nested in message.nested_type:
        yield from fields(nested, f"{path}.")
    for enum in message.enum_type:
        yield from values(enum, f"{path}.")


def values(enum, prefix=""):
    for value in enum.value:
        yield f"{prefix}{enum.name}.{value.name}", value.number


def everything(*descriptions: FileDescriptorProto) -> dict[str, object]:
    found: dict[str, object] = {}
    for description in descriptions:
        for message in description.message_type:
            found.update(fields(message))
        for enum in description.enum_type:
            found.update(values(enum))
        for service in description.service:
            for method in service.method:
                signature = (method.input_type, method.output_type, method.client_streaming, method.server_streaming)
                found[f"{service.name}.{method.name}"] = signature
    return found


def ours(*names: str) -> dict[str, object]:
    return everything(*(described(messages.pool().FindFileByName(name)) for name in names))


def inference_files() -> list[str]:
    return [str(path.relative_to(PROTOS)) for path in (PROTOS / "inference").glob("*.proto")]


def test_the_compiled_descriptors_are_those_of_the_text():
    pytest.importorskip("grpc_tools", reason="no grpcio-tools: pip install 'inferloop[dev]'")
    spec = importlib.util.spec_from_file_location("compile_protos", PROTOS / "compile.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.compiled() == (PROTOS / "descriptors.binpb").read_bytes(), "`make protos` compiles them anew"


def test_every_field_of_tritonclient_is_ours_with_the_same_number_type_and_label():
    theirs = pytest.importorskip("tritonclient.grpc", reason="no tritonclient: pip install 'inferloop[dev]'")
    expected = everything(described(theirs.service_pb2.DESCRIPTOR), described(theirs.model_config_pb2.DESCRIPTOR))
    found = ours(*inference_files())
    assert {name: found.get(name) for name in expected} == expected
    assert set(found) - set(expected) == {
        "ModelMetadataResponse.properties",
        "ModelMetadataResponse.PropertiesEntry.key",
        "ModelMetadataResponse.PropertiesEntry.value",
    }


def test_health_and_reflection_are_those_of_grpc():
    health = pytest.importorskip("grpc_health.v1.health_pb2", reason="no grpcio-health-checking: pip install 'inferloop[dev]'")
    reflection = pytest.importorskip(
        "grpc_reflection.v1alpha.reflection_pb2", reason="no grpcio-reflection: pip install 'inferloop[dev]'"
    )
    expected, found = everything(described(reflection.DESCRIPTOR)), ours("grpc/reflection/v1alpha/reflection.proto")
    assert found == expected
    expected, found = everything(described(health.DESCRIPTOR)), ours("grpc/health/v1/health.proto")
    assert {name: expected[name] for name in found} == found


def test_both_versions_of_reflection_have_the_same_fields():
    alpha = ours("grpc/reflection/v1alpha/reflection.proto")
    current = ours("grpc/reflection/v1/reflection.proto")
    assert repr(alpha).replace("v1alpha", "v1") == repr(current)


def test_our_messages_are_unknown_to_the_pool_that_all_share():
    messages.message_class("inference.ModelInferRequest")
    with pytest.raises(KeyError):
        descriptor_pool.Default().FindFileByName("inference/infer.proto")


def test_bytes_that_are_no_message_are_refused():
    with pytest.raises(InvalidInput, match="the message is no inference"):
        messages.parse(messages.message_class("inference.ModelInferRequest"), b"\xff\xff")
