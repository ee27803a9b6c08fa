"""The twins of the model and the codec: they answer by the seed, the message and the version."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, cast

import msgspec
import numpy as np

from inferloop.core.bundle import Bundle
from inferloop.core.errors import EngineError, InferloopError, InvalidInput, Overloaded, Unavailable
from inferloop.core.protocols import Codec
from inferloop.core.sample import Message, Sample
from inferloop.prediction.prediction import Prediction
from inferloop.streams.loading import PipelineSpec
from inferloop.streams.scoring import Predicts, scored_of
from inferloop.streams.simulation.plan import POISON
from inferloop.streams.simulation.world import EPOCH_S, World

_LATENCY_S = 0.003


class SimulatedCodec(Codec):
    """Reads what the plan wrote, as the fields of the file's codec.

    Args:
        has_ids: whether the messages of this pipeline bring an id.
    """

    def __init__(self, kinds: Mapping[str, str], *, has_ids: bool) -> None:
        self._kinds = kinds
        self._has_ids = has_ids

    def decode(self, message: Message) -> Sample:
        """See `Codec.decode`."""
        if message.payload.startswith(POISON):
            raise InvalidInput("poison")
        content = msgspec.json.decode(message.payload)
        at = content.get("age_s")
        return Sample(
            fields=content["fields"],
            id=f"m{content['number']}" if self._has_ids else "",
            key=content["key"],
            time=None if at is None else EPOCH_S + at,
            raw=message.payload,
            source=message.source,
            topic=message.topic,
        )

    def fields(self) -> Mapping[str, str]:
        """See `Codec.fields`."""
        return self._kinds


@dataclass(frozen=True, slots=True)
class _Transforms:
    fields: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Manifest:
    transforms: _Transforms


@dataclass(frozen=True, slots=True)
class _Described:
    """As much of a Bundle as a pipeline asks for."""

    manifest: _Manifest
    labels: tuple[str, ...]
    name: str = "simulated"
    version: int = 1


@dataclass(slots=True)
class SimulatedModel(Predicts):
    """Answers with the labels that the rules ask for, or with a number where they ask for none."""

    spec: PipelineSpec
    world: World
    _answers: int = 0
    _labels: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        """See which labels the rules ask for."""
        named = dict.fromkeys(rule.label for rule in self.spec.rules if rule.label is not None)
        self._labels = (*named, "other") if named else ()

    def bundle(self, ref: str) -> Bundle:  # noqa: ARG002 - there is one model
        """See `Predicts.bundle`."""
        return cast("Bundle", _Described(_Manifest(_Transforms(dict.fromkeys(self.spec.model.inputs, ""))), self._labels))

    async def predict_many(
        self,
        ref: str,  # noqa: ARG002 - there is one model
        samples: Sequence[Sample],
        *,
        source: str = "",  # noqa: ARG002 - and nobody looks
    ) -> Sequence[Prediction | InferloopError]:
        """See `Predicts.predict_many`."""
        world = self.world
        generation, version = world.generation, world.version
        await asyncio.sleep(world.random.expovariate(1 / _LATENCY_S))
        world.check(generation)
        return [self._attempt(sample, version) for sample in samples]

    def _attempt(self, sample: Sample, version: int) -> Prediction | InferloopError:
        try:
            return self._predict(sample, version)
        except InferloopError as error:
            return error

    def _predict(self, sample: Sample, version: int) -> Prediction:
        world = self.world
        how = world.trouble("model")
        if how:
            world.counts["model_away"] += 1
            raise Unavailable("the model is away") if how == "away" else Overloaded("the model is busy")
        random = Random(f"{world.plan.seed} {version} {sample.raw!r}")
        if random.random() < 0.02:
            raise EngineError("the model cannot do this one")
        prediction = self._answer(random, version)
        world.scored[prediction.id] = scored_of(prediction)
        return prediction

    def _answer(self, random: Random, version: int) -> Prediction:
        self._answers += 1
        id_ = f"p{self._answers}"
        if not self._labels:
            bounds = [bound for rule in self.spec.rules for bound in (rule.above, rule.below) if bound is not None] or [0.0]
            number = random.uniform(min(bounds) - 1, max(bounds) + 1)
            return Prediction(id_, "simulated", version, "", math.nan, {}, {"score": np.array([[number]])})
        weights = [math.exp(random.gauss(0, 3)) for _ in self._labels]
        scores = {label: weight / sum(weights) for label, weight in zip(self._labels, weights, strict=True)}
        best = max(scores, key=lambda label: scores[label])
        label = "" if random.random() < 0.1 else best
        outputs: dict[str, Any] = {}
        return Prediction(id_, "simulated", version, label, scores[best], scores, outputs)
