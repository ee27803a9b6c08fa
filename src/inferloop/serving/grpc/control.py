"""The calls that do not predict: status, metadata, repository, settings, shared memory; the operations are those of REST."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from inferloop.core.errors import InferloopError, Unavailable
from inferloop.net.grpc_call import Call
from inferloop.serving.grpc.messages import INFERENCE, build, message_class, parse
from inferloop.serving.grpc.requests import version_of
from inferloop.serving.grpc.rpc import Rpc, tell_hint, unary
from inferloop.serving.operations.logging import LogOperations
from inferloop.serving.operations.metadata import Metadata
from inferloop.serving.operations.model_config import ModelConfigs
from inferloop.serving.operations.repository import Repository
from inferloop.serving.operations.shared_memory import CudaRegions
from inferloop.serving.operations.statistics import Statistics
from inferloop.serving.operations.trace import TraceOperations
from inferloop.serving.services import Services

Operation = Callable[[Any], Awaitable[dict[str, Any]]]
"""A request message in, the plain values of the answer's message out."""

_LOG_FIELDS = {bool: "bool_param", int: "uint32_param", str: "string_param"}


class Control:
    """The methods, each an operation between a request and a response message of its name."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._metadata = Metadata(services)
        self._configs = ModelConfigs(services)
        self._statistics = Statistics(services)
        self._repository = Repository(services.router, services.changes)
        self._regions = services.regions
        self._cuda = CudaRegions()
        self._tracing = TraceOperations(services)
        self._logging = LogOperations(services)
        self._operations: dict[str, Operation] = {
            "ServerLive": self._server_live,
            "ServerReady": self._server_ready,
            "ModelReady": self._model_ready,
            "ServerMetadata": self._server,
            "ModelMetadata": self._model,
            "ModelConfig": self._config,
            "ModelStatistics": self._stats,
            "RepositoryIndex": self._index,
            "RepositoryModelLoad": self._load,
            "RepositoryModelUnload": self._unload,
            "SystemSharedMemoryStatus": self._regions_status,
            "SystemSharedMemoryRegister": self._register,
            "SystemSharedMemoryUnregister": self._unregister,
            "CudaSharedMemoryStatus": self._cuda_status,
            "CudaSharedMemoryRegister": self._cuda_register,
            "CudaSharedMemoryUnregister": self._cuda_unregister,
            "TraceSetting": self._trace,
            "LogSettings": self._log,
        }

    def methods(self) -> dict[str, Rpc]:
        """By path."""
        return {f"/{INFERENCE}/{name}": _rpc(name, operation) for name, operation in self._operations.items()}

    async def _server_live(self, _request: Any) -> dict[str, Any]:
        return {"live": True}

    async def _server_ready(self, _request: Any) -> dict[str, Any]:
        try:
            self._metadata.server_ready()
        except Unavailable:
            return {"ready": False}
        return {"ready": True}

    async def _model_ready(self, request: Any) -> dict[str, Any]:
        return {"ready": self._metadata.model_ready(request.name, version_of(request.version))}

    async def _server(self, _request: Any) -> dict[str, Any]:
        return self._metadata.server()

    async def _model(self, request: Any) -> dict[str, Any]:
        return self._metadata.model(request.name, version_of(request.version))

    async def _config(self, request: Any) -> dict[str, Any]:
        return {"config": self._configs.config(request.name, version_of(request.version))}

    async def _stats(self, request: Any) -> dict[str, Any]:
        return await self._statistics.total(request.name, version_of(request.version))

    async def _index(self, request: Any) -> dict[str, Any]:
        return {"models": self._repository.index(request.ready)}

    async def _load(self, request: Any) -> dict[str, Any]:
        await self._repository.load(request.model_name, _chosen(request.parameters))
        return {}

    async def _unload(self, request: Any) -> dict[str, Any]:
        with_dependents = bool(_chosen(request.parameters).get("unload_dependents", False))
        await self._repository.unload(request.model_name, with_dependents)
        return {}

    async def _regions_status(self, request: Any) -> dict[str, Any]:
        return {"regions": {region["name"]: region for region in self._regions.status(request.name)}}

    async def _register(self, request: Any) -> dict[str, Any]:
        self._regions.register(request.name, request.key, request.offset, request.byte_size)
        return {}

    async def _unregister(self, request: Any) -> dict[str, Any]:
        self._regions.unregister(request.name)
        return {}

    async def _cuda_status(self, request: Any) -> dict[str, Any]:
        return {"regions": {region["name"]: region for region in self._cuda.status(request.name)}}

    async def _cuda_register(self, request: Any) -> dict[str, Any]:
        self._cuda.register(request.name)
        return {}

    async def _cuda_unregister(self, request: Any) -> dict[str, Any]:
        self._cuda.unregister(request.name)
        return {}

    async def _trace(self, request: Any) -> dict[str, Any]:
        patch = {name: list(setting.value) for name, setting in request.settings.items()}
        found = self._tracing.update(request.model_name, patch) if patch else self._tracing.get(request.model_name)
        if patch:
            await self._services.spread()
        return {"settings": {name: {"value": value if isinstance(value, list) else [value]} for name, value in found.items()}}

    async def _log(self, request: Any) -> dict[str, Any]:
        patch = _chosen(request.settings)
        found = self._logging.update(patch) if patch else self._logging.get()
        if patch:
            await self._services.spread()
        return {"settings": {name: {_LOG_FIELDS[type(value)]: value} for name, value in found.items()}}


def _rpc(name: str, operation: Operation) -> Rpc:
    taken, given = message_class(f"inference.{name}Request"), message_class(f"inference.{name}Response")

    async def answer(call: Call, message: bytes) -> bytes:
        try:
            content = await operation(parse(taken, message))
        except InferloopError as error:
            tell_hint(call, error)
            raise
        encoded: bytes = build(given, content).SerializeToString()
        return encoded

    return unary(answer)


def _chosen(entries: Any) -> dict[str, Any]:
    """The values of a map of messages `oneof parameter_choice`; one without a value is left out."""
    chosen = {name: (entry, entry.WhichOneof("parameter_choice")) for name, entry in entries.items()}
    return {name: getattr(entry, choice) for name, (entry, choice) in chosen.items() if choice is not None}
