"""Ask the model: a micro-batch at a time, each message with an answer or an error of its own."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Sequence
from typing import Any, Protocol

import msgspec

from inferloop.core.bundle import Bundle
from inferloop.core.clock import SYSTEM, Clock
from inferloop.core.datatypes import Array
from inferloop.core.errors import DeadlineExceeded, EngineError, InferloopError, NotFound, Overloaded, Unavailable
from inferloop.core.sample import Sample
from inferloop.prediction.prediction import Prediction
from inferloop.streams.config import ModelSection
from inferloop.streams.rules.scored import Scored
from inferloop.streams.work import Work

log = logging.getLogger(__name__)

_LATER = (Overloaded, Unavailable, DeadlineExceeded, NotFound)
"""The model is not there now: the message waits, it is not to blame."""
_LONGEST_WAIT_S = 5.0


class Predicts(Protocol):
    """What a pipeline needs of a Router."""

    async def predict_many(
        self, ref: str, samples: Sequence[Sample], *, source: str = ""
    ) -> Sequence[Prediction | InferloopError]:
        """An answer or an error for each Sample, in their order; see `Router.predict_many`."""
        ...

    def bundle(self, ref: str) -> Bundle:
        """The Bundle that answers now."""
        ...


class Scorer:
    """Scores work with one model of a Router.

    Args:
        section: the model section of the pipeline file.
        source: who asks, for the ledger.
    """

    def __init__(self, router: Predicts, section: ModelSection, *, source: str, clock: Clock = SYSTEM) -> None:
        self._random = clock.random
        self._router = router
        self._section = section
        self._source = source

    async def score(self, works: Sequence[Work]) -> None:
        """Give every piece of work its scores or its error. Waits as long as the model is not there."""
        most = self._section.batch.max
        for start in range(0, len(works), most):
            await self._score(works[start : start + most])

    async def _score(self, works: Sequence[Work]) -> None:
        waiting = list(works)
        attempt = 0
        while waiting:
            answers = await self._predict(waiting)
            later: list[Work] = []
            for work, answer in zip(waiting, answers, strict=True):
                if isinstance(answer, Scored):
                    work.scored = answer
                elif isinstance(answer, _LATER):
                    later.append(work)
                else:
                    work.error, work.error_kind = answer, "model"
            if later:
                attempt += 1
                await self._wait(attempt, len(later), next(a for a in answers if isinstance(a, _LATER)))
            waiting = later

    async def _predict(self, works: Sequence[Work]) -> list[Scored | InferloopError]:
        samples = [self._model_sample(work.sample) for work in works if work.sample is not None]
        try:
            given = await self._router.predict_many(self._section.ref, samples, source=self._source)
        except InferloopError as error:
            return [error] * len(works)
        except Exception as error:  # a message that breaks the model is poison, not the end of the pipeline
            if len(works) > 1:
                return [(await self._predict([work]))[0] for work in works]
            log.exception("model raised what it must not", extra={"model": self._section.ref, "message_id": works[0].id})
            return [EngineError(f"the model broke: {type(error).__name__}: {error}")]
        return [scored_of(answer) if isinstance(answer, Prediction) else answer for answer in given]

    def _model_sample(self, sample: Sample) -> Sample:
        """The message under the names of the Bundle's fields."""
        inputs = self._section.inputs
        if not inputs:
            return sample
        return msgspec.structs.replace(
            sample, fields={name: sample.fields[field] for name, field in inputs.items() if field in sample.fields}
        )

    async def _wait(self, attempt: int, count: int, error: InferloopError) -> None:
        delay_s = min(_LONGEST_WAIT_S, 0.05 * 2 ** min(attempt, 16)) * self._random.uniform(0.5, 1.0)
        if attempt == 1 or attempt % 10 == 0:
            facts: dict[str, Any] = {"model": self._section.ref, "reason": error.message, "messages": count, "retry_s": delay_s}
            log.warning("model is not there, messages wait", extra=facts)
        await asyncio.sleep(delay_s)


def scored_of(prediction: Prediction) -> Scored:
    """A prediction as rules see it: without labels, the score is the only output."""
    label, scores, score = prediction.label, prediction.scores, prediction.score
    abstained = bool(scores) and not label
    if not scores and not label:
        single = [array for array in prediction.outputs.values() if array.size == 1 and array.dtype.kind in "fiub"]
        score = _number(single[0]) if len(single) == 1 else math.nan
    return Scored(label, score, scores, prediction.id, abstained, prediction.model, prediction.version)


def _number(array: Array) -> float:
    return float(array.reshape(-1)[0])
