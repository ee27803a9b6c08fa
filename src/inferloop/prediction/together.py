"""Many Samples of one model at once: prepared together, run together, an answer or an error for each.

A Sample alone costs a coroutine, a future and a dozen small arrays; of 64 that came together most of that is needed once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from inferloop.core.datatypes import Tensors
from inferloop.core.errors import EngineError, InferloopError
from inferloop.core.sample import Sample
from inferloop.prediction.answers import Answers, Origin
from inferloop.prediction.batcher import Batcher
from inferloop.prediction.meter import Meter
from inferloop.prediction.prediction import Prediction

Answered = Prediction | InferloopError


class Together:
    """Answers Samples in as few runs as can be. Event loop only.

    Args:
        batcher: of the event loop; asked for at every call.
        most: rows of one run.
    """

    def __init__(self, batcher: Callable[[], Batcher], answers: Answers, meter: Meter, *, most: int) -> None:
        self._batcher = batcher
        self._answers = answers
        self._meter = meter
        self._most = most

    async def answer(
        self, samples: Sequence[Sample], rows: Sequence[Tensors | InferloopError], origins: Sequence[Origin]
    ) -> list[Answered]:
        """An answer or an error for each Sample, in their order.

        Args:
            samples: what was asked.
            rows: its tensors, one row each, or why there are none.
            origins: whose it is.
        """
        found: dict[int, Answered] = {place: row for place, row in enumerate(rows) if isinstance(row, InferloopError)}
        good = {place: row for place, row in enumerate(rows) if not isinstance(row, InferloopError)}
        for places in _runs(good, self._most):
            outputs = await self._run([good[place] for place in places])
            for place, row in zip(places, outputs, strict=True):
                found[place] = row if isinstance(row, InferloopError) else self._prediction(samples[place], row, origins[place])
        now = time.perf_counter()
        for place, answer in found.items():
            if isinstance(answer, InferloopError):
                self._meter.refused(answer, now - origins[place].started)
            else:
                self._meter.answered(now - origins[place].started)
        return [found[place] for place in range(len(samples))]

    async def _run(self, rows: Sequence[Tensors]) -> Iterable[Tensors | InferloopError]:
        """The outputs of every row; a run of several that the engine fails is made again row by row."""
        stacked = {name: np.concatenate([row[name] for row in rows]) for name in rows[0]} if len(rows) > 1 else rows[0]
        try:
            outputs = await self._batcher().submit(stacked, judged=True)
        except EngineError as error:
            if len(rows) == 1:
                return [error]
            return await asyncio.gather(*(self._alone(row) for row in rows))
        except InferloopError as error:
            return [type(error)(error.message, hint=error.hint) for _ in rows]
        return ({name: array[place : place + 1] for name, array in outputs.items()} for place in range(len(rows)))

    async def _alone(self, row: Tensors) -> Tensors | InferloopError:
        try:
            return await self._batcher().submit(row, judged=True)
        except InferloopError as error:
            return error

    def _prediction(self, sample: Sample, outputs: Tensors, origin: Origin) -> Answered:
        try:
            return self._answers.prediction(sample, outputs, origin)
        except InferloopError as error:
            return error


def _runs(rows: dict[int, Tensors], most: int) -> Iterator[list[int]]:
    """The places that share a run: those whose rows have the same shapes."""
    groups: dict[tuple[tuple[int, ...], ...], list[int]] = {}
    for place, row in rows.items():
        groups.setdefault(tuple(array.shape for array in row.values()), []).append(place)
    for places in groups.values():
        yield from (places[start : start + most] for start in range(0, len(places), most))
