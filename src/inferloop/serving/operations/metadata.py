"""What the server and its models say of themselves."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of
from typing import Any

from inferloop.core.errors import InferloopError, NotFound, Unavailable
from inferloop.core.signature import TensorSpec
from inferloop.prediction.live import ModelRole, State
from inferloop.serving.operations.refusals import unknown_model
from inferloop.serving.services import Services

EXTENSIONS = (
    "binary_tensor_data",
    "classification",
    "logging",
    "model_configuration",
    "model_repository",
    "model_repository(unload_dependents)",
    "parameters",
    "schedule_policy",
    "sequence",
    "statistics",
    "trace",
)
_SHARED_MEMORY = "system_shared_memory"
_ENSEMBLE = "ensemble"
_PLATFORM = "onnx"


class Metadata:
    """Reads names, versions and tensors. Event loop only."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._router = services.router

    def server(self) -> dict[str, Any]:
        """Name, version and extensions; shared memory only where clients may use it."""
        shared = (_SHARED_MEMORY,) if self._services.regions.allowed else ()
        return {"name": "inferloop", "version": _version(), "extensions": [*EXTENSIONS, *shared]}

    def server_ready(self) -> None:
        """Return if every model answers and the server is not about to stop.

        Raises:
            Unavailable: what is missing.
        """
        if self._services.draining:
            raise Unavailable("the server is stopping")
        if not self._router.ready:
            states = self._router.models()
            waiting = [f"{state.ref} ({state.state.lower()})" for state in states if state.state is not State.READY]
            raise Unavailable(f"not ready: {', '.join(waiting) or 'no model is open'}")

    def model(self, name: str, version: int | None) -> dict[str, Any]:
        """The tensors that a model takes and gives; free axes are -1, the batch axis is among them.

        Raises:
            NotFound: the model or the version is not open.
            Unavailable: it is not loaded yet.
        """
        try:
            bundle = self._router.bundle(name, version=version)
        except NotFound as error:
            raise unknown_model(error, self._router, name, version) from error
        return {
            "name": bundle.name,
            "versions": self._versions(bundle.name, bundle.version),
            "platform": _ENSEMBLE if self._router.settings(name).ensemble else _PLATFORM,
            "inputs": [_tensor(spec) for spec in bundle.signature.inputs],
            "outputs": [_tensor(spec) for spec in bundle.signature.outputs],
        }

    def model_ready(self, name: str, version: int | None) -> bool:
        """Whether a model, or one of its versions, answers; false for an unknown one."""
        try:
            return not self._router.predictor(name, version=version).problem
        except InferloopError:
            return False

    def _versions(self, name: str, version: int) -> list[str]:
        states = [state for state in self._router.models() if state.name == name]
        found = {state.version for state in states if state.role is not ModelRole.SHADOW}
        return [str(number) for number in sorted(found | {version})]


def _tensor(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "datatype": spec.dtype.value, "shape": [-1 if size is None else size for size in spec.shape]}


def _version() -> str:
    try:
        return version_of("inferloop")
    except PackageNotFoundError:  # run from a source tree that is not installed
        return "0"
