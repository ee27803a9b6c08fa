"""Requests of many callers in few runs of the engine, on an asyncio event loop.

    submit ─ check ─ queue by shape ─ dispatch when the engine is free ─ run ─ dispatch again ─ answer each

What queued while the engine was busy goes into the next run; an idle engine starts at once.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Iterable, Sequence
from functools import partial
from itertools import chain

from inferloop.core.datatypes import Tensors
from inferloop.core.errors import DeadlineExceeded, EngineError, InferloopError, InvalidInput, Overloaded, Unavailable
from inferloop.core.protocols import Session
from inferloop.prediction.deadlines import Deadlines
from inferloop.prediction.execution import Outcome, engine_errors, execute
from inferloop.prediction.instance import Instance
from inferloop.prediction.jobs import Job, JobQueue, PriorityQueue, Reply, grouping
from inferloop.prediction.meter import Meter
from inferloop.prediction.timeline import Timeline
from inferloop.prediction.worker import Worker

log = logging.getLogger(__name__)

INLINE_MAX_S = 0.001
SLOW_RUNS = 5
"""A model does not stay on the event loop after so many runs in a row that took longer; a single one had a busy neighbor."""


class Batcher:
    """Batches requests for the sessions of one model. All methods are called on the event loop it was made on.

    Every accepted request gets exactly one answer: outputs, or one error. A request that is refused never joins a batch.

    Args:
        sessions: one, or several that run side by side, each in a thread of its own. The same one several times is fine where
            it may run concurrently.
        max_batch: rows of one run, and of one request.
        max_delay_s: how long a request may wait for company while the engine is idle.
        queue_rows: rows that may wait; above it `submit` raises `Overloaded`.
        inline: run on the event loop instead of in a thread; left by itself when the runs turn out to be slow. Never with several
            sessions.
        priority_levels: how many priorities there are; 0 for none.
        default_priority: for requests that name none or one that is not there; 0 for the last.
        queue_timeout_s: how long a request may wait for the engine; 0 for no bound.
    """

    def __init__(
        self,
        sessions: Session | Sequence[Session],
        *,
        max_batch: int = 64,
        max_delay_s: float = 0.0,
        queue_rows: int = 1024,
        inline: bool = False,
        meter: Meter | None = None,
        priority_levels: int = 0,
        default_priority: int = 0,
        queue_timeout_s: float = 0.0,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self._instances = [Instance(session) for session in _several(sessions)]
        self._free = list(self._instances)
        self._signature = self._instances[0].session.signature
        self._group = grouping(self._signature)
        self._max_batch = max_batch
        self._max_delay_s = max_delay_s
        self._queue_rows = queue_rows
        self._inline = inline and len(self._instances) == 1
        self._meter = meter
        self._levels = priority_levels
        self._default = default_priority or priority_levels
        self._patience_s = queue_timeout_s
        room = max_batch if self._signature.batched else 1
        self._queue = PriorityQueue(room, priority_levels) if priority_levels > 1 else JobQueue(room)
        self._turn: asyncio.Handle | None = None
        self._turn_at = math.inf
        self._swept = False
        self._run_s = 0.0
        self._slow_runs = 0
        self._closing = False
        self._quiet = asyncio.Event()
        self._deadlines = Deadlines(self.loop, self._unanswered)

    @property
    def inline(self) -> bool:
        """Whether the engine runs on the event loop."""
        return self._inline

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return self._queue.requests

    @property
    def waiting_rows(self) -> int:
        """Rows in the queue; those in the engine do not count."""
        return self._queue.rows

    def submit(
        self,
        inputs: Tensors,
        *,
        deadline: float | None = None,
        priority: int = 0,
        judged: bool = False,
        timeline: Timeline | None = None,
    ) -> asyncio.Future[Tensors]:
        """Accept a request; cancel the future to leave.

        Args:
            inputs: every input of the signature; left unchanged until the answer.
            deadline: `time.monotonic()` seconds; at that time the answer is `DeadlineExceeded`.
            priority: 1 is served first; 0 for the default.
            timeline: where its stations are written down; None for a request that is not traced.
            judged: whether a `JudgedSession` shall add its verdicts for this request; it may add them anyhow.

        Returns:
            The outputs, with as many rows as the inputs; or `EngineError`, `DeadlineExceeded`, `Unavailable`; `Overloaded` after
            `queue_timeout_s`.

        Raises:
            InvalidInput: the inputs do not fit the signature, or have more rows than one run takes.
            Overloaded: the queue is full.
            DeadlineExceeded: the deadline is over already.
            Unavailable: the batcher is closing.
        """
        answer = _Answer()
        answer.job = self.enter(inputs, answer.settle, deadline=deadline, priority=priority, judged=judged, timeline=timeline)
        return answer

    def enter(
        self,
        inputs: Tensors,
        reply: Reply,
        *,
        deadline: float | None = None,
        priority: int = 0,
        judged: bool = False,
        timeline: Timeline | None = None,
    ) -> Job:
        """Accept a request whose answer `reply` takes; `Job.leave` to leave. All else as `submit`."""
        rows = self._signature.check(inputs)
        now = time.monotonic()
        self._admit(rows, deadline, now)
        job = Job(inputs, rows, self._group(inputs), reply, now)
        job.judged = judged
        if deadline is not None:
            job.deadline = deadline
            self._deadlines.watch(deadline)
        if self._levels:
            job.priority = priority if 0 < priority <= self._levels else self._default
        if timeline is not None:
            job.timeline = timeline
            timeline.queue_start_ns = time.time_ns()
        if self._patience_s:
            job.patience = self.loop.call_later(self._patience_s, job.refuse, self._patience_s)
        if self._max_delay_s and not self._closing:
            job.leave_by = now + min(self._max_delay_s, (job.deadline - now) / 2, job.deadline - now - 2 * self._run_s)
        self._queue.add(job)
        self._wake(now)
        return job

    async def close(self, *, grace_s: float = 10.0) -> bool:
        """Take nothing more, finish what was accepted, refuse what is left after `grace_s`.

        Returns:
            Whether every session is free; false if the last run of one has not come back.
        """
        self._closing = True
        try:
            if self._queue or self._busy:
                self._quiet.clear()
                self._wake(-math.inf)
                async with asyncio.timeout(grace_s):
                    await self._quiet.wait()
        except TimeoutError:
            log.warning("engine still busy at close", extra={"waiting_rows": self._queue.rows, "grace_s": grace_s})
        finally:
            is_free = not self._busy
            self._refuse_all()
        return is_free

    def abandon(self) -> None:
        """Let the thread end when the event loop is gone: nobody waits any more, and nobody can be answered."""
        self._closing = True
        for instance in self._instances:
            instance.stop()

    @property
    def _busy(self) -> bool:
        return len(self._free) < len(self._instances)

    def _admit(self, rows: int, deadline: float | None, now: float) -> None:
        if self._closing:
            raise Unavailable("the model is being unloaded", hint="try again")
        if rows > self._max_batch:
            raise InvalidInput(f"{rows} rows in one request, the limit is {self._max_batch}", hint="send fewer rows at once")
        if deadline is not None and deadline <= now:
            raise DeadlineExceeded("the deadline was over on arrival")
        if self._queue.rows + rows > self._queue_rows:
            self._sweep(now)
        if self._queue.rows + rows > self._queue_rows:
            raise Overloaded(
                f"{self._queue.rows} rows wait for the engine, the limit is {self._queue_rows}",
                hint="try again later, or give the model more instances",
                retry_after_s=max(0.05, self._run_s * self._queue.rows / self._max_batch),
            )

    def _sweep(self, now: float) -> None:
        """Once a run at most: a full queue of living requests must not make every refusal slow."""
        if not self._swept:
            self._swept = True
            self._queue.sweep(now)

    def _wake(self, now: float) -> None:
        """See to it that `_dispatch` runs in this turn of the loop, unless it comes by itself when a session is free."""
        if not self._free or self._turn_at <= now:
            return
        if self._turn is not None:
            self._turn.cancel()
        self._turn_at = -math.inf
        self._turn = self.loop.call_soon(self._dispatch)

    def _dispatch(self) -> None:
        if self._turn is not None:
            self._turn.cancel()
        self._turn, self._turn_at = None, math.inf
        while self._free:
            jobs = self._queue.take(time.monotonic(), everything=self._closing or not self._max_delay_s)
            if not jobs:
                break
            self._swept = False
            self._start(self._free.pop(), jobs)
            if self._inline:
                return
        if self._queue:
            self._wait_for_company()
        elif not self._busy:
            self._quiet.set()

    def _wait_for_company(self) -> None:
        if self._free:
            self._turn_at = self._queue.next_turn()
            self._turn = self.loop.call_later(self._turn_at - time.monotonic(), self._dispatch)

    def _start(self, instance: Instance, jobs: list[Job]) -> None:
        instance.jobs = jobs
        try:
            self._observe_start(jobs)
            if not self._inline:
                self._hand_over(instance, jobs)
        except Exception as error:  # the batch loop outlives whatever happens to one batch
            instance.jobs = ()
            self._free.append(instance)
            for job, outcome in zip(jobs, engine_errors(error, len(jobs)), strict=True):
                job.answer(outcome)
        else:
            if self._inline:
                self._run_here(instance, jobs)

    def _hand_over(self, instance: Instance, jobs: list[Job]) -> None:
        if instance.worker is None:
            done, ended = partial(self._done, instance), partial(self._worker_ended, instance)
            instance.worker = Worker(instance.session, self.loop, done, ended=ended, meter=self._meter)
        instance.worker.put(jobs)

    def _run_here(self, instance: Instance, jobs: list[Job]) -> None:
        started = time.perf_counter()
        outcomes: list[Outcome] | None = None
        try:
            outcomes = execute(instance.session, jobs, self._meter)
        finally:
            if outcomes is None:
                outcomes = [EngineError("the run was interrupted") for _ in jobs]
            self._done(instance, jobs, outcomes, time.perf_counter() - started)

    def _done(self, instance: Instance, jobs: Sequence[Job], outcomes: list[Outcome], took_s: float) -> None:
        """A session is free: refill it first, then answer, each caller on its own."""
        if jobs is instance.jobs:  # else its worker was given up, and the jobs are answered
            instance.jobs = ()
            self._free.append(instance)
            self._run_s += 0.1 * (took_s - self._run_s)
            self._leave_inline_if_slow(took_s)
            self._next()
        for job, outcome in zip(jobs, outcomes, strict=True):
            if job.timeline is not None:
                job.timeline.compute_end_ns = time.time_ns()
            job.answer(outcome)

    def _next(self) -> None:
        if self._queue and self._inline:
            self._wake(time.monotonic())  # one run a turn: the sockets get theirs in between
            return
        self._dispatch()

    def _worker_ended(self, instance: Instance, worker: Worker) -> None:
        """A thread that died with a batch in hand: its callers get an error, the next batch a new thread."""
        if worker is not instance.worker:
            return
        instance.worker = None
        if instance.jobs:
            log.error("engine thread died", extra={"requests": len(instance.jobs)})
            errors: list[Outcome] = [EngineError("the engine's thread died") for _ in instance.jobs]
            self._done(instance, instance.jobs, errors, 0.0)

    def _unanswered(self) -> Iterable[Job]:
        return chain(self._queue, *(instance.jobs for instance in self._instances))

    def _refuse_all(self) -> None:
        waiting = list(self._unanswered())
        self._queue.drain()
        self._deadlines.close()
        for job in waiting:
            job.answer(Unavailable("the model was unloaded before the answer", hint="try again"))
        if self._turn is not None:
            self._turn.cancel()
        for instance in self._instances:
            instance.stop()

    def _leave_inline_if_slow(self, took_s: float) -> None:
        if not self._inline:
            return
        self._slow_runs = self._slow_runs + 1 if took_s > INLINE_MAX_S else 0
        if self._slow_runs >= SLOW_RUNS:
            log.info("engine moves off the event loop", extra={"run_s": took_s})
            self._inline = False

    def _observe_start(self, jobs: Sequence[Job]) -> None:
        if self._patience_s:
            for job in jobs:
                job.start()
        if self._meter is not None:
            now = time.monotonic()
            self._meter.waited([now - job.submitted for job in jobs])
            for job in jobs:
                if job.timeline is not None:
                    job.timeline.compute_start_ns = time.time_ns()
                    job.timeline.batch_rows = sum(each.rows for each in jobs)


class _Answer(asyncio.Future[Tensors]):
    """The answer to a job, for those who await it; cancelling it leaves."""

    job: Job

    def settle(self, outcome: Outcome) -> None:
        """Take it."""
        if isinstance(outcome, InferloopError):
            self.set_exception(outcome)
        else:
            self.set_result(outcome)

    def cancel(self, msg: object = None) -> bool:
        """See `asyncio.Future.cancel`."""
        self.job.leave()
        return super().cancel(msg)


def _several(sessions: Session | Sequence[Session]) -> Sequence[Session]:
    return sessions if isinstance(sessions, Sequence) else (sessions,)
