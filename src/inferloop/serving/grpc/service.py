"""All methods by their path: what a transport asks."""

from __future__ import annotations

from inferloop.net.grpc_call import Method
from inferloop.serving.grpc.control import Control
from inferloop.serving.grpc.guard import guarded
from inferloop.serving.grpc.health import Health
from inferloop.serving.grpc.inference import Inference
from inferloop.serving.grpc.observed import observed
from inferloop.serving.grpc.reflection import Reflection
from inferloop.serving.grpc.rpc import Rpc
from inferloop.serving.grpc.stream import Streams
from inferloop.serving.services import Services


class Grpc:
    """The Open Inference Protocol v2, health and reflection as methods; give `find` to a transport. One event loop."""

    def __init__(self, services: Services) -> None:
        inference = Inference(services)
        self._streams = Streams(inference)
        parts = (inference, self._streams, Control(services), Health(services), Reflection())
        methods = {path: rpc for part in parts for path, rpc in part.methods().items()}
        if services.keys is not None:
            methods = {path: guarded(path, rpc, services.keys) for path, rpc in methods.items()}
        if services.access is not None:
            methods = {path: observed(path, rpc, services.access) for path, rpc in methods.items()}
        self._methods: dict[str, Rpc] = methods

    def find(self, path: str) -> Method | None:
        """See `net.grpc_call.Find`."""
        return self._methods.get(path)

    def end_streams(self) -> None:
        """Let streams end: they answer what they have read, and read no more."""
        self._streams.end()
