"""`model.yaml`: how a model of the repository is held and scheduled, in our own words."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pydantic

from inferloop.core.datatypes import DataType
from inferloop.core.errors import InvalidConfig, InvalidInput
from inferloop.core.signature import TensorSpec
from inferloop.core.target import Target
from inferloop.data.config import Duration, Size, read_yaml, validate
from inferloop.prediction.limits import Limits
from inferloop.prediction.repository.declared import Declared
from inferloop.prediction.settings import MOST_INSTANCES, MOST_LEVELS, Isolation, ModelSettings, SequenceSettings, StatePair, Step
from inferloop.prediction.versions import VersionPolicy


class _Keys(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")


class Batch(_Keys):
    """How requests are put together."""

    max: int | None = pydantic.Field(default=None, ge=1, description="Rows of one run of the engine, and of one request.")
    max_delay: Duration | None = pydantic.Field(default=None, description="How long a request may wait for company.")


class Queue(_Keys):
    """What may wait for the engine."""

    rows: int | None = pydantic.Field(default=None, ge=1, description="Rows that may wait.")
    timeout: Duration = pydantic.Field(default=0.0, description="How long a request may wait; 0 for no bound.")


class Priorities(_Keys):
    """Whose requests go first."""

    levels: int = pydantic.Field(ge=1, le=MOST_LEVELS, description="How many priorities there are; 1 is served first.")
    default: int = pydantic.Field(default=0, ge=0, description="The priority of requests that name none.")


class Versions(_Keys):
    """Which versions are served: the latest ones, or certain ones."""

    latest: int | None = pydantic.Field(default=None, ge=1, description="How many of the highest numbers.")
    specific: tuple[int, ...] = pydantic.Field(default=(), description="Exactly these numbers, those that exist.")


class State(_Keys):
    """A tensor that goes from one request of a sequence to the next."""

    input: str = pydantic.Field(description="The input that gets what the request before gave.")
    output: str = pydantic.Field(description="The output that is kept.")


class Sequence(_Keys):
    """A model that keeps state between the requests of a sequence."""

    max_idle: Duration = pydantic.Field(default=60.0, description="A sequence that is silent for so long is forgotten.")
    max_sequences: int = pydantic.Field(default=1024, ge=1, description="How many may be open at once.")
    states: tuple[State, ...] = pydantic.Field(default=(), description="The state tensors; left out, those of the role `state`.")


class EnsembleStep(_Keys):
    """One model of an ensemble."""

    model: str = pydantic.Field(description="Its name.")
    version: int | None = pydantic.Field(default=None, ge=1, description="Its version; left out, the one that answers.")
    inputs: dict[str, str] = pydantic.Field(description="The model's input: the ensemble's tensor.")
    outputs: dict[str, str] = pydantic.Field(description="The model's output: the ensemble's tensor.")
    when: str = pydantic.Field(default="", description="A condition over the ensemble's one-element tensors.")


class Tensor(_Keys):
    """An input or output of an ensemble."""

    name: str = pydantic.Field(description="Its name.")
    datatype: DataType = pydantic.Field(description="By the protocol's name.")
    shape: tuple[int, ...] = pydantic.Field(description="Every axis, -1 for a free one; a free first axis is the batch.")


class Cache(_Keys):
    """Remembered answers."""

    size: Size = pydantic.Field(default=64_000_000, description="What they may take.")


class ModelKeys(_Keys):
    """The keys of `model.yaml`. All may be left out."""

    target: str | None = pydantic.Field(default=None, description="Where it is loaded, e.g. `onnxruntime:cpu:f32@2`.")
    threads: int | None = pydantic.Field(default=None, ge=1, le=1024, description="Threads of one run, in place of the target's.")
    instances: int = pydantic.Field(default=1, ge=1, le=MOST_INSTANCES, description="Sessions that run side by side.")
    batch: Batch = pydantic.Field(default=Batch(), description="How requests are put together.")
    queue: Queue = pydantic.Field(default=Queue(), description="What may wait for the engine.")
    priorities: Priorities | None = pydantic.Field(default=None, description="Whose requests go first.")
    warmup: tuple[int, ...] = pydantic.Field(default=(), description="Batch sizes that are run before the model is ready.")
    cache: Cache | bool = pydantic.Field(default=False, description="Whether equal requests may get a remembered answer.")
    sequence: Sequence | None = pydantic.Field(default=None, description="For a model that keeps state.")
    decoupled: bool = pydantic.Field(default=False, description="Whether a request may get no, one or many answers.")
    ensemble: tuple[EnsembleStep, ...] = pydantic.Field(default=(), description="The steps of a model that is made of others.")
    inputs: tuple[Tensor, ...] = pydantic.Field(default=(), description="What an ensemble takes.")
    outputs: tuple[Tensor, ...] = pydantic.Field(default=(), description="What an ensemble gives.")
    isolation: Isolation = pydantic.Field(default=Isolation.THREAD, description="Whether the engine has a process of its own.")
    versions: Versions | Literal["all"] = pydantic.Field(default=Versions(), description="Which versions are served.")
    parameters: dict[str, str] = pydantic.Field(default={}, description="What its owner notes; shown in its configuration.")


def read_model_yaml(path: Path, where: str, *, limits: Limits, target: Target) -> Declared:
    """Read `model.yaml`.

    Args:
        path: the file.
        where: what it is called in messages.
        limits: what it does not say.
        target: the same.

    Raises:
        InvalidConfig: all problems at once, each with its path.
    """
    keys = validate(ModelKeys, read_yaml(path), where)
    try:
        settings = _settings(keys, limits, target)
    except InvalidInput as error:
        raise InvalidConfig([f"{where}: {error.message}"], hint=error.hint) from error
    if keys.ensemble and not (keys.inputs and keys.outputs):
        raise InvalidConfig([f"{where}: ensemble: needs inputs and outputs"])
    inputs, outputs = _specs(keys.inputs), _specs(keys.outputs)
    batched = all(spec.batched for spec in (*inputs, *outputs)) if keys.ensemble else None
    return Declared(settings=settings, inputs=inputs, outputs=outputs, batched=batched)


def _settings(keys: ModelKeys, limits: Limits, target: Target) -> ModelSettings:
    place = Target.parse(keys.target) if keys.target is not None else target
    priorities = keys.priorities or Priorities.model_construct(levels=0, default=0)
    cache = keys.cache if isinstance(keys.cache, Cache) else Cache()
    return ModelSettings(
        target=place if keys.threads is None else replace(place, threads=keys.threads),
        limits=_limits(keys, limits),
        instances=keys.instances,
        priority_levels=priorities.levels,
        default_priority=priorities.default,
        queue_timeout_s=keys.queue.timeout,
        warmup_rows=keys.warmup,
        cached=keys.cache is not False,
        cache_bytes=cache.size,
        sequence=_sequence(keys.sequence),
        decoupled=keys.decoupled,
        ensemble=tuple(Step(step.model, step.inputs, step.outputs, step.version, step.when) for step in keys.ensemble),
        isolation=keys.isolation,
        parameters=keys.parameters,
        versions=_versions(keys.versions),
    )


def _limits(keys: ModelKeys, limits: Limits) -> Limits:
    changes: dict[str, Any] = {"max_batch": keys.batch.max, "max_delay_s": keys.batch.max_delay, "queue_rows": keys.queue.rows}
    found = {key: value for key, value in changes.items() if value is not None}
    found.setdefault("queue_rows", max(limits.queue_rows, found.get("max_batch", 0)))
    return replace(limits, **found)


def _sequence(keys: Sequence | None) -> SequenceSettings | None:
    if keys is None:
        return None
    states = tuple(StatePair(state.input, state.output) for state in keys.states)
    return SequenceSettings(max_idle_s=keys.max_idle, max_sequences=keys.max_sequences, states=states)


def _versions(keys: Versions | str) -> VersionPolicy:
    if isinstance(keys, str):
        return VersionPolicy(latest=0)
    return VersionPolicy(latest=keys.latest or 1, specific=keys.specific)


def _specs(tensors: tuple[Tensor, ...]) -> tuple[TensorSpec, ...]:
    return tuple(
        TensorSpec(tensor.name, tensor.datatype, tuple(None if size < 0 else size for size in tensor.shape)) for tensor in tensors
    )
