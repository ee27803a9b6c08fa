"""One request of tensors on its way: into the batcher, out to ledger and metrics, and to whoever asked; no coroutine."""

from __future__ import annotations

import time
from asyncio import CancelledError

from inferloop.core.datatypes import Tensors
from inferloop.core.errors import InferloopError
from inferloop.core.work import Done, Work
from inferloop.prediction.answers import Answers, Origin
from inferloop.prediction.jobs import Job
from inferloop.prediction.looped import LoopedRuns
from inferloop.prediction.meter import Meter
from inferloop.prediction.options import Options
from inferloop.prediction.prediction import Inference


class Asking(Work[Inference]):
    """A request that a batch answers; cancelling it takes it out of the queue."""

    __slots__ = ("_answers", "_deadline", "_done", "_job", "_meter", "_options", "_origin", "_runs", "_tensors")

    _done: Done[Inference]

    def __init__(
        self,
        runs: LoopedRuns,
        answers: Answers,
        meter: Meter,
        origin: Origin,
        tensors: Tensors,
        deadline: float | None,
        options: Options,
    ) -> None:
        self._runs = runs
        self._answers = answers
        self._meter = meter
        self._origin = origin
        self._tensors = tensors
        self._deadline = deadline
        self._options = options
        self._job: Job | None = None

    def start(self, done: Done[Inference]) -> None:
        """See `Work.start`; errors as `Predictor.ainfer`."""
        self._done = done
        options = self._options
        try:
            self._job = self._runs.batcher().enter(
                self._tensors, self._take, deadline=self._deadline, priority=options.priority, timeline=options.timeline
            )
        except Exception as error:  # whatever refuses it, its caller hears it
            self._fail(error)

    def cancel(self) -> None:
        """See `Work.cancel`."""
        job = self._job
        if job is not None and not job.answered:
            job.leave()
            self._fail(CancelledError())

    def _take(self, outcome: Tensors | InferloopError) -> None:
        self._job = None
        if isinstance(outcome, InferloopError):
            self._fail(outcome)
            return
        origin = self._origin
        try:
            answer = self._answers.inference(outcome, self._runs.rows(outcome), origin)
        except Exception as error:  # outputs that are none: this request fails, its neighbors do not
            self._fail(error)
            return
        self._meter.answered(time.perf_counter() - origin.started)
        self._done(answer, None)

    def _fail(self, error: BaseException) -> None:
        self._meter.refused(error, time.perf_counter() - self._origin.started)
        self._done(None, error)
