"""`grpc.reflection`: services and messages for clients that know none of them, such as grpcurl; version 1 and its alpha."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from google.protobuf.descriptor_pb2 import FileDescriptorProto

from inferloop.net.grpc_call import Call, Status
from inferloop.serving.grpc.messages import HEALTH, INFERENCE, REFLECTION, REFLECTION_ALPHA, message_class, parse, pool
from inferloop.serving.grpc.rpc import Rpc, stream

SERVICES = (INFERENCE, HEALTH, REFLECTION, REFLECTION_ALPHA)


class Reflection:
    """The one method of the service, in both versions; their messages are alike."""

    def methods(self) -> dict[str, Rpc]:
        """By path."""
        return {
            f"/{service}/ServerReflectionInfo": stream(_Version(service).handle) for service in (REFLECTION, REFLECTION_ALPHA)
        }


class _Version:
    def __init__(self, service: str) -> None:
        package = service.rpartition(".")[0]
        self._request = message_class(f"{package}.ServerReflectionRequest")
        self._response = message_class(f"{package}.ServerReflectionResponse")

    async def handle(self, call: Call) -> None:
        """An answer to each question, in order."""
        while (message := await call.recv()) is not None:
            asked = parse(self._request, message)
            answer = self._response(valid_host=asked.host, original_request=asked)
            self._fill(answer, asked)
            await call.send(answer.SerializeToString())

    def _fill(self, answer: Any, asked: Any) -> None:
        match asked.WhichOneof("message_request"):
            case "list_services":
                for name in SERVICES:
                    answer.list_services_response.service.add(name=name)
            case "file_by_filename":
                self._files(answer, asked.file_by_filename, by_name=True)
            case "file_containing_symbol":
                self._files(answer, asked.file_containing_symbol, by_name=False)
            case "all_extension_numbers_of_type":
                self._extensions(answer, asked.all_extension_numbers_of_type)
            case "file_containing_extension":
                self._missing(answer, f"no extension {asked.file_containing_extension.extension_number}")
            case _:
                answer.error_response.error_code = Status.INVALID_ARGUMENT
                answer.error_response.error_message = "the request asks nothing"

    def _files(self, answer: Any, name: str, *, by_name: bool) -> None:
        try:
            file = pool().FindFileByName(name) if by_name else pool().FindFileContainingSymbol(name)
        except KeyError:
            self._missing(answer, f"no {'file' if by_name else 'symbol'} named {name!r}")
            return
        answer.file_descriptor_response.file_descriptor_proto.extend(_serialized(file))

    def _extensions(self, answer: Any, name: str) -> None:
        """None of our messages is extended."""
        try:
            pool().FindMessageTypeByName(name)
        except KeyError:
            self._missing(answer, f"no message named {name!r}")
            return
        answer.all_extension_numbers_response.base_type_name = name

    def _missing(self, answer: Any, message: str) -> None:
        answer.error_response.error_code = Status.NOT_FOUND
        answer.error_response.error_message = message


def _serialized(file: Any) -> Iterator[bytes]:
    """A file and all that it imports, itself first."""
    waiting, seen = [file], {file.name}
    while waiting:
        current = waiting.pop()
        description = FileDescriptorProto()
        current.CopyToProto(description)
        yield description.SerializeToString()
        for imported in current.dependencies:
            if imported.name not in seen:
                seen.add(imported.name)
                waiting.append(imported)
