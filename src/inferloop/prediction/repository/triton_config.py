"""Triton's model configuration, as `config.pbtxt` or as the JSON of a load request, in our words."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from inferloop.core import plugins
from inferloop.core.datatypes import DataType
from inferloop.core.errors import InvalidConfig, InvalidInput, Unsupported
from inferloop.core.signature import TensorSpec
from inferloop.data.config import validate
from inferloop.prediction.limits import Limits
from inferloop.prediction.repository.declared import Declared
from inferloop.prediction.repository.text_format import parse_text
from inferloop.prediction.repository.triton_keys import REFUSED, Batching, Config, Sequences, Tensor, Versions, fitting
from inferloop.prediction.settings import Control, ControlKind, ModelSettings, SequenceSettings, StatePair, Step
from inferloop.prediction.versions import LATEST, VersionPolicy

_PLATFORMS = frozenset({"", "onnx", "ensemble"})
_BACKENDS = frozenset({"", "openvino"})
_MODEL = "model.onnx"
_IDLE_US = 1_000_000  # Triton's own for 0
_KINDS = frozenset({"", "KIND_AUTO", "KIND_CPU", "KIND_MODEL"})
_CONTROLS = {
    "CONTROL_SEQUENCE_START": ControlKind.START,
    "CONTROL_SEQUENCE_END": ControlKind.END,
    "CONTROL_SEQUENCE_READY": ControlKind.READY,
    "CONTROL_SEQUENCE_CORRID": ControlKind.CORRID,
}


def read_text(text: str, where: str, *, name: str, limits: Limits) -> Declared:
    """Read `config.pbtxt`. Arguments and errors as `read_json`."""
    content = parse_text(text, where)
    return _declared(content, where, name, limits, written="max_batch_size" in content)


def read_json(text: str, where: str, *, name: str, limits: Limits) -> Declared:
    """Read the configuration of a load request.

    Args:
        text: the file.
        where: what it is called in messages.
        name: the model's; a configuration of another is refused.
        limits: what it does not say.

    Raises:
        InvalidInput: not the format, or a value that cannot be; all problems at once.
        Unsupported: it asks for something that must not be passed over: another platform, code, tensors made by the server.
    """
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{where} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise InvalidInput(f"{where} must be a JSON object")
    return _declared(content, where, name, limits, written="max_batch_size" in content or "maxBatchSize" in content)


def _declared(content: Any, where: str, name: str, limits: Limits, *, written: bool) -> Declared:
    known, unknown = fitting(content, Config)
    for path in unknown:
        if path in REFUSED and not _is_empty(content, path):
            raise Unsupported(f"{where}: {path} is not offered: {REFUSED[path]}")
    config = validate(Config, known, where)
    _check(config, where, name)
    batched = config.max_batch_size > 0 if written or config.input else None
    return Declared(
        settings=_settings(config, where, limits),
        inputs=_specs(config.input, where, batched=bool(batched)),
        outputs=_specs(config.output, where, batched=bool(batched)),
        batched=batched,
        model_file=config.default_model_filename or _MODEL,
        label_file=_label_file(config.output),
        not_used=(*unknown, *_not_followed(config)),
    )


def _not_followed(config: Config) -> Iterator[str]:
    """Values of known keys that mean nothing here, as `key: value`."""
    kinds = dict.fromkeys(group.kind for group in config.instance_group)
    yield from (f"instance_group.kind: {kind}" for kind in kinds if kind not in _KINDS)
    policy = config.dynamic_batching.default_queue_policy if config.dynamic_batching is not None else None
    if policy is not None and policy.timeout_action != "REJECT":
        yield f"dynamic_batching.default_queue_policy.timeout_action: {policy.timeout_action}"


def _is_empty(content: Any, path: str) -> bool:
    """Whether a key that is refused says nothing, as Triton writes it out."""
    key = path.partition(".")[0]
    return path == key and content.get(key) in ([], {}, None)


def _check(config: Config, where: str, name: str) -> None:
    if config.name and config.name != name:
        raise InvalidInput(f"{where} is of model {config.name!r}, its directory is {name!r}")
    known = config.platform in _PLATFORMS or config.platform.endswith("_onnx")
    if not known or config.backend not in _BACKENDS.union(plugins.names("engines")):
        said = config.backend or config.platform
        raise Unsupported(f"{where}: models of {said!r} are not served", hint="ONNX models and ensembles are")
    if (config.platform == "ensemble") != (config.ensemble_scheduling is not None):
        raise InvalidInput(f"{where}: platform 'ensemble' and ensemble_scheduling go together")
    if config.ensemble_scheduling is not None and not (config.input and config.output and config.ensemble_scheduling.step):
        raise InvalidInput(f"{where}: an ensemble needs input, output and at least one step")
    ragged = next((tensor.name for tensor in config.input if tensor.allow_ragged_batch), None)
    if ragged is not None:
        raise Unsupported(f"{where}: input.allow_ragged_batch of {ragged!r} is not offered", hint="send rows of one shape")


def _settings(config: Config, where: str, limits: Limits) -> ModelSettings:
    batching = config.dynamic_batching or Batching()
    transaction, cache, ensemble = config.model_transaction_policy, config.response_cache, config.ensemble_scheduling
    try:
        return ModelSettings(
            limits=_limits(config, batching, limits),
            instances=max(1, sum(group.count for group in config.instance_group)),
            priority_levels=batching.priority_levels,
            default_priority=batching.default_priority_level,
            queue_timeout_s=_timeout_s(batching),
            warmup_rows=tuple(
                sorted({min(max(1, one.batch_size), max(1, config.max_batch_size)) for one in config.model_warmup})
            ),
            cached=cache is not None and cache.enable,
            sequence=_sequence(config.sequence_batching),
            decoupled=transaction is not None and transaction.decoupled,
            ensemble=tuple(_steps(config)) if ensemble is not None else (),
            versions=version_policy(config.version_policy),
            parameters={key: parameter.string_value for key, parameter in config.parameters.items()},
        )
    except InvalidInput as error:
        raise InvalidConfig([f"{where}: {error.message}"], hint=error.hint) from error


def _limits(config: Config, batching: Batching, limits: Limits) -> Limits:
    max_batch = config.max_batch_size or limits.max_batch
    policy = batching.default_queue_policy
    waiting = policy.max_queue_size if policy is not None and policy.max_queue_size else limits.queue_rows
    delay_s = batching.max_queue_delay_microseconds * 1e-6
    return replace(limits, max_batch=max_batch, queue_rows=max(waiting, max_batch), max_delay_s=delay_s or limits.max_delay_s)


def _timeout_s(batching: Batching) -> float:
    policy = batching.default_queue_policy
    return policy.default_timeout_microseconds * 1e-6 if policy is not None and policy.timeout_action == "REJECT" else 0.0


def _sequence(sequences: Sequences | None) -> SequenceSettings | None:
    if sequences is None:
        return None
    controls = []
    for given in sequences.control_input:
        for value in given.control:
            if value.kind not in _CONTROLS:
                raise InvalidInput(f"sequence_batching.control_input: kind {value.kind!r} is not known")
            pair = value.int32_false_true or value.fp32_false_true or value.bool_false_true or [0, 1]
            if len(pair) != 2:
                raise InvalidInput(f"sequence_batching.control_input of {given.name!r}: needs a value for no and one for yes")
            controls.append(Control(given.name, _CONTROLS[value.kind], float(pair[0]), float(pair[1])))
    states = tuple(StatePair(state.input_name, state.output_name) for state in sequences.state)
    most = sequences.oldest.max_candidate_sequences if sequences.oldest is not None else 0
    idle_s = (sequences.max_sequence_idle_microseconds or _IDLE_US) * 1e-6
    return SequenceSettings(max_idle_s=idle_s, max_sequences=most or 1024, states=states, controls=tuple(controls))


def _steps(config: Config) -> Iterator[Step]:
    if config.ensemble_scheduling is not None:
        for step in config.ensemble_scheduling.step:
            version = step.model_version if step.model_version > 0 else None
            yield Step(step.model_name, step.input_map, step.output_map, version=version)


def version_policy(policy: Versions | None) -> VersionPolicy:
    """In our words; the latest version where there is none."""
    if policy is None:
        return LATEST
    if policy.specific is not None:
        return VersionPolicy(specific=tuple(policy.specific.versions))
    if policy.all is not None:
        return VersionPolicy(latest=0)
    return VersionPolicy(latest=max(1, policy.latest.num_versions if policy.latest is not None else 1))


def _specs(tensors: list[Tensor], where: str, *, batched: bool) -> tuple[TensorSpec, ...]:
    lead: tuple[int | None, ...] = (None,) if batched else ()
    return tuple(
        TensorSpec(tensor.name, _datatype(tensor, where), (*lead, *(None if size < 0 else size for size in tensor.dims)))
        for tensor in tensors
    )


def _datatype(tensor: Tensor, where: str) -> DataType:
    word = tensor.data_type.removeprefix("TYPE_")
    if word == "STRING":
        return DataType.BYTES
    if word not in set(DataType):
        raise InvalidConfig([f"{where}: data_type {tensor.data_type!r} of {tensor.name!r} is not known"])
    return DataType(word)


def _label_file(outputs: list[Tensor]) -> str:
    named = [tensor.label_filename for tensor in outputs if tensor.label_filename]
    return named[0] if len(named) == 1 else ""
