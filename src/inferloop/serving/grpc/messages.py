"""The message classes of the services, in a pool of their own.

The descriptors are compiled from `protos/` ahead of time (`make protos`). They are loaded into a private `DescriptorPool`, so
that tritonclient, kserve and others can register files and messages of the same names in the same process.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any

from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.json_format import ParseDict
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

from inferloop.core.errors import InvalidInput

INFERENCE = "inference.GRPCInferenceService"
HEALTH = "grpc.health.v1.Health"
REFLECTION = "grpc.reflection.v1.ServerReflection"
REFLECTION_ALPHA = "grpc.reflection.v1alpha.ServerReflection"


@cache
def pool() -> DescriptorPool:
    """The pool that holds every service and message of ours, and nothing else."""
    found = DescriptorPool()
    compiled = files("inferloop.serving.grpc").joinpath("protos/descriptors.binpb").read_bytes()
    for file in FileDescriptorSet.FromString(compiled).file:  # imported files come first
        found.AddSerializedFile(file.SerializeToString())
    return found


@cache
def message_class(name: str) -> Any:
    """The class of a message by its full name, e.g. `inference.ModelInferRequest`."""
    return GetMessageClass(pool().FindMessageTypeByName(name))


def parse(kind: Any, data: bytes) -> Any:
    """A message of the class `kind`.

    Raises:
        InvalidInput: `data` is no such message.
    """
    try:
        return kind.FromString(data)
    except DecodeError as error:
        raise InvalidInput(f"the message is no {kind.DESCRIPTOR.full_name}") from error


def build(kind: Any, content: dict[str, Any]) -> Any:
    """A message of the class `kind` from the plain values of an operation; values that REST alone tells are left out."""
    return ParseDict(content, kind(), ignore_unknown_fields=True)
