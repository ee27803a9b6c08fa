"""The keys of Triton's model configuration that mean something here, as pydantic models."""

from __future__ import annotations

from typing import Any

import pydantic


class Part(pydantic.BaseModel):
    """A message of the configuration. What it does not name is not used; `REFUSED` names what must not be passed over."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")


class Tensor(Part):
    """An input or output; `dims` without the batch axis where `max_batch_size` is above 0."""

    name: str
    data_type: str
    dims: list[int] = []
    format: str = ""
    label_filename: str = ""
    is_shape_tensor: bool = False
    optional: bool = False
    allow_ragged_batch: bool = False
    is_non_linear_format_io: bool = False


class Latest(Part):
    """The highest version numbers."""

    num_versions: int = 1


class Specific(Part):
    """Certain version numbers."""

    versions: list[int] = []


class All(Part):
    """Every version."""


class Versions(Part):
    """One of the three."""

    latest: Latest | None = None
    all: All | None = None
    specific: Specific | None = None


class Group(Part):
    """Instances on one device."""

    name: str = ""
    kind: str = "KIND_AUTO"
    count: int = 1


class QueuePolicy(Part):
    """How long and how many may wait."""

    timeout_action: str = "REJECT"
    default_timeout_microseconds: int = 0
    allow_timeout_override: bool = False
    max_queue_size: int = 0


class Batching(Part):
    """How requests are put together."""

    preferred_batch_size: list[int] = []
    max_queue_delay_microseconds: int = 0
    preserve_ordering: bool = False
    priority_levels: int = 0
    default_priority_level: int = 0
    default_queue_policy: QueuePolicy | None = None


class ControlValue(Part):
    """What one input is told."""

    kind: str = "CONTROL_SEQUENCE_START"
    int32_false_true: list[int] = []
    fp32_false_true: list[float] = []
    bool_false_true: list[bool] = []
    data_type: str = ""


class ControlInput(Part):
    """An input that the server fills in."""

    name: str
    control: list[ControlValue]


class State(Part):
    """A tensor that goes from one request of a sequence to the next."""

    input_name: str
    output_name: str
    data_type: str = ""
    dims: list[int] = []


class Direct(Part):
    """A slot for every sequence."""


class Oldest(Part):
    """Batches over sequences."""

    max_candidate_sequences: int = 0
    preferred_batch_size: list[int] = []
    max_queue_delay_microseconds: int = 0
    preserve_ordering: bool = False


class Sequences(Part):
    """Requests that belong together."""

    max_sequence_idle_microseconds: int = 60_000_000
    control_input: list[ControlInput] = []
    state: list[State] = []
    direct: Direct | None = None
    oldest: Oldest | None = None


class EnsembleStep(Part):
    """One model of an ensemble."""

    model_name: str
    model_version: int = -1
    input_map: dict[str, str]
    output_map: dict[str, str]


class Ensemble(Part):
    """The steps."""

    step: list[EnsembleStep]


class Parameter(Part):
    """A value that the model's owner noted."""

    string_value: str = ""


class Warmup(Part):
    """A batch that is run before the model is ready."""

    name: str = ""
    batch_size: int = 0
    count: int = 0


class Cache(Part):
    """Remembered answers."""

    enable: bool = False


class Transaction(Part):
    """How many answers a request gets."""

    decoupled: bool = False


class Config(Part):
    """The whole file."""

    name: str = ""
    platform: str = ""
    backend: str = ""
    default_model_filename: str = ""
    version_policy: Versions | None = None
    max_batch_size: int = pydantic.Field(default=0, ge=0)
    input: list[Tensor] = []
    output: list[Tensor] = []
    instance_group: list[Group] = []
    dynamic_batching: Batching | None = None
    sequence_batching: Sequences | None = None
    ensemble_scheduling: Ensemble | None = None
    parameters: dict[str, Parameter] = {}
    model_warmup: list[Warmup] = []
    response_cache: Cache | None = None
    model_transaction_policy: Transaction | None = None


REFUSED: dict[str, str] = {
    "model_operations": "it loads libraries into the server",
    "model_repository_agents": "agents run code on the files",
    "cc_model_filenames": "there are no devices to choose a file by",
    "batch_input": "the model would compute something else without it",
    "batch_output": "the model would compute something else without it",
    "input.reshape": "the model would compute something else without it",
    "output.reshape": "the model would compute something else without it",
    "sequence_batching.state.initial_state": "the model would compute something else without it",
    "sequence_batching.iterative_sequence": "the model would compute something else without it",
}
"""Keys that cannot be passed over, by path, and why."""


def fitting(content: Any, kind: type[pydantic.BaseModel]) -> tuple[dict[str, Any], list[str]]:
    """The part of a configuration that a model knows, and the paths of what it does not.

    Args:
        content: from JSON, or from the text format, where every value is a list and a map is a list of key and value.
        kind: the model.
    """
    unknown: list[str] = []
    return _message(content, kind, "", unknown), list(dict.fromkeys(unknown))


def _message(content: Any, kind: type[pydantic.BaseModel], path: str, unknown: list[str]) -> Any:
    if not isinstance(content, dict):
        return content
    found = {}
    for key, value in content.items():
        name = _snake(key)
        field = kind.model_fields.get(name)
        if field is None:
            unknown.append(f"{path}{name}")
        elif value is not None:
            found[name] = _value(value, field.annotation, f"{path}{name}", unknown)
    return found


def _value(value: Any, annotation: Any, path: str, unknown: list[str]) -> Any:
    origin: Any = getattr(annotation, "__origin__", None)
    arguments: tuple[Any, ...] = getattr(annotation, "__args__", ())
    if origin is list:
        values = value if isinstance(value, list) else [value]
        return [_value(item, arguments[0], path, unknown) for item in values]
    if origin is dict:
        if isinstance(value, list) and all(isinstance(item, dict) for item in value):
            value = {_last(item.get("key", "")): item.get("value", "") for item in value}
        if not isinstance(value, dict):
            return value
        return {key: _value(item, arguments[1], path, unknown) for key, item in value.items()}
    kind = next((item for item in (annotation, *arguments) if isinstance(item, type) and issubclass(item, Part)), None)
    value = _last(value)
    return _message(value, kind, f"{path}.", unknown) if kind is not None else value


def _last(value: Any) -> Any:
    """A field that is written twice has its last value."""
    return value[-1] if isinstance(value, list) and value else value


def _snake(key: str) -> str:
    """JSON of Protocol Buffers may say `maxBatchSize`."""
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in key)
