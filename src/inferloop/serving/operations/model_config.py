"""A model's configuration in the words of Triton's `ModelConfig`: what perf_analyzer and people read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from inferloop.core.errors import NotFound
from inferloop.core.signature import Role, TensorSpec
from inferloop.core.target import Target
from inferloop.prediction.limits import Limits
from inferloop.prediction.servable import Servable
from inferloop.prediction.settings import ModelSettings
from inferloop.prediction.versions import VersionPolicy
from inferloop.serving.operations.refusals import unknown_model
from inferloop.serving.services import Services

_US = 1_000_000


class ModelConfigs:
    """Describes how models are held and scheduled. Event loop only."""

    def __init__(self, services: Services) -> None:
        self._router = services.router

    def config(self, name: str, version: int | None = None) -> dict[str, Any]:
        """The configuration of an open model, as Triton writes it; `dims` are without the batch axis.

        Raises:
            NotFound: the model or the version is not open.
            Unavailable: it is not loaded yet.
        """
        try:
            servable = self._router.predictor(name, version=version)
            settings = self._router.settings(name)
        except NotFound as error:
            raise unknown_model(error, self._router, name, version) from error
        limits: Limits = getattr(servable, "limits", None) or settings.limits or Limits()
        content = _described(servable, settings, limits)
        content.update(_scheduling(servable, settings, limits))
        return content


def _described(servable: Servable, settings: ModelSettings, limits: Limits) -> dict[str, Any]:
    signature = servable.signature
    engine = _target(servable, settings).engine
    return {
        "name": servable.name,
        "platform": "ensemble" if settings.ensemble else f"{engine}_onnx",
        "backend": "" if settings.ensemble else engine,
        "runtime": "",
        "version_policy": _versions(settings.versions),
        "max_batch_size": limits.max_batch if signature.batched else 0,
        "input": [_input(spec, batched=signature.batched) for spec in signature.inputs],
        "output": [_output(spec, batched=signature.batched) for spec in signature.outputs],
        "batch_input": [],
        "batch_output": [],
        "optimization": {
            "priority": "PRIORITY_DEFAULT",
            "input_pinned_memory": {"enable": False},
            "output_pinned_memory": {"enable": False},
            "gather_kernel_buffer_threshold": 0,
            "eager_batching": False,
        },
        "instance_group": [] if settings.ensemble else [_instances(servable, settings)],
        "default_model_filename": "" if settings.ensemble else "model.onnx",
        "cc_model_filenames": {},
        "metric_tags": {},
        "parameters": {key: {"string_value": value} for key, value in settings.parameters.items()},
        "model_warmup": [_warmup(rows, servable) for rows in settings.warmup_rows],
    }


def _versions(policy: VersionPolicy) -> dict[str, Any]:
    if policy.specific:
        return {"specific": {"versions": list(policy.specific)}}
    return {"latest": {"num_versions": policy.latest}} if policy.latest else {"all": {}}


def _scheduling(servable: Servable, settings: ModelSettings, limits: Limits) -> dict[str, Any]:
    """The parts that only some models have."""
    content: dict[str, Any] = {}
    if settings.ensemble:
        content["ensemble_scheduling"] = {"step": [_step(step.model, step) for step in settings.ensemble]}
    elif settings.sequence is not None:
        content["sequence_batching"] = {"max_sequence_idle_microseconds": round(settings.sequence.max_idle_s * _US)}
    elif servable.signature.batched:
        content["dynamic_batching"] = _batching(settings, limits)
    if settings.decoupled:
        content["model_transaction_policy"] = {"decoupled": True}
    if settings.cached:
        content["response_cache"] = {"enable": True}
    return content


def _batching(settings: ModelSettings, limits: Limits) -> dict[str, Any]:
    policy: dict[str, Any] = {}
    if settings.queue_timeout_s:
        policy = {"timeout_action": "REJECT", "default_timeout_microseconds": round(settings.queue_timeout_s * _US)}
    return {
        "preferred_batch_size": [limits.max_batch],
        "max_queue_delay_microseconds": round(limits.max_delay_s * _US),
        "preserve_ordering": False,
        "priority_levels": settings.priority_levels,
        "default_priority_level": settings.default_priority,
        "priority_queue_policy": {},
        **({"default_queue_policy": policy} if policy else {}),
    }


def _input(spec: TensorSpec, *, batched: bool) -> dict[str, Any]:
    return {
        "name": spec.name,
        "data_type": _datatype(spec),
        "format": "FORMAT_NONE",
        "dims": _dims(spec, batched=batched),
        "is_shape_tensor": False,
        "allow_ragged_batch": False,
        "optional": False,
        "is_non_linear_format_io": False,
    }


def _output(spec: TensorSpec, *, batched: bool) -> dict[str, Any]:
    return {
        "name": spec.name,
        "data_type": _datatype(spec),
        "dims": _dims(spec, batched=batched),
        "label_filename": "",
        "is_shape_tensor": False,
        "is_non_linear_format_io": False,
    }


def _datatype(spec: TensorSpec) -> str:
    return "TYPE_STRING" if spec.dtype.value == "BYTES" else f"TYPE_{spec.dtype.value}"


def _dims(spec: TensorSpec, *, batched: bool) -> list[int]:
    shape: Sequence[int | None] = spec.shape[1:] if batched else spec.shape
    return [-1 if size is None else size for size in shape]


def _instances(servable: Servable, settings: ModelSettings) -> dict[str, Any]:
    device = _target(servable, settings).device
    return {
        "name": f"{servable.name}_0",
        "kind": "KIND_CPU" if device == "cpu" else "KIND_GPU",
        "count": settings.instances,
        "gpus": [],
        "secondary_devices": [],
        "profile": [],
        "passive": False,
        "host_policy": "",
    }


def _target(servable: Servable, settings: ModelSettings) -> Target:
    target: Target = getattr(servable, "target", None) or settings.target or Target()
    return target


def _warmup(rows: int, servable: Servable) -> dict[str, Any]:
    inputs = {
        spec.name: {"data_type": _datatype(spec), "dims": _dims(spec, batched=servable.signature.batched), "zero_data": True}
        for spec in servable.signature.inputs
        if spec.role is not Role.STATE
    }
    return {"name": f"{rows} rows", "batch_size": rows, "inputs": inputs, "count": 1}


def _step(model: str, step: Any) -> dict[str, Any]:
    return {
        "model_name": model,
        "model_version": -1 if step.version is None else step.version,
        "input_map": dict(step.inputs),
        "output_map": dict(step.outputs),
        "model_namespace": "",
    }
