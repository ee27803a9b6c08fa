"""Requests that wait for an engine: what one is, which of them share a run, and whose turn it is."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import chain

from inferloop.core.datatypes import Tensors
from inferloop.core.errors import DeadlineExceeded, InferloopError, Overloaded
from inferloop.core.signature import Signature
from inferloop.prediction.timeline import Timeline

log = logging.getLogger(__name__)

Group = tuple[tuple[int, ...], ...]


Reply = Callable[[Tensors | InferloopError], None]
"""Takes the outputs of a job, or why there are none; on the event loop."""


def _to_nobody(_outcome: Tensors | InferloopError) -> None:
    """The reply of a job whose caller has left."""


class Job:
    """One accepted request. It is answered once, on the event loop, unless its caller leaves before.

    Attributes:
        group: the sizes of its free axes beside the batch axis; jobs of one group may share a run.
        answered: nobody waits for it any more.
        deadline: `time.monotonic()` seconds; infinity without one.
        leave_by: when it stops waiting for company, same clock.
        priority: 1 is the first; 0 where there are no priorities.
        judged: whether its caller wants verdicts.
        timeline: where its stations are written down; None if it is not traced.
        patience: refuses it when it has waited too long for the engine; None where it may wait.
    """

    __slots__ = (
        "_reply",
        "answered",
        "deadline",
        "group",
        "inputs",
        "judged",
        "leave_by",
        "patience",
        "priority",
        "rows",
        "submitted",
        "timeline",
    )

    def __init__(self, inputs: Tensors, rows: int, group: Group, reply: Reply, submitted: float) -> None:
        self._reply = reply
        self.inputs = inputs
        self.rows = rows
        self.group = group
        self.submitted = submitted
        self.answered = False
        self.deadline = math.inf
        self.leave_by = submitted
        self.priority = 0
        self.judged = False
        self.patience: asyncio.TimerHandle | None = None
        self.timeline: Timeline | None = None

    def answer(self, outcome: Tensors | InferloopError) -> None:
        """Give the outcome unless the job was answered, ran out of time or its caller left. Never raises."""
        if not self.answered:
            reply = self._reply
            self.leave()
            try:
                reply(outcome)
            except Exception:  # a caller who cannot take its answer must not cost its neighbors theirs
                log.exception("answer not delivered")

    def leave(self) -> None:
        """Wait no longer; there will be no reply."""
        self.answered = True
        self._reply = _to_nobody  # its caller holds the job: no circle for the garbage collector
        if self.patience is not None:
            self.patience.cancel()

    def expire(self) -> None:
        """Answer that the deadline has passed."""
        waited_s = time.monotonic() - self.submitted
        self.answer(DeadlineExceeded(f"the deadline passed after {waited_s:.3f} s", hint="allow more time or send less at once"))

    def refuse(self, limit_s: float) -> None:
        """Answer that it waited too long for the engine."""
        hint = "try again later, or give the model more instances"
        self.answer(Overloaded(f"waited {limit_s:g} s for the engine, the limit of this model", hint=hint))

    def start(self) -> None:
        """It waits no longer: the engine has it."""
        if self.patience is not None:
            self.patience.cancel()

    def is_alive(self, now: float) -> bool:
        """Whether somebody still waits for it; one whose deadline has passed is answered here."""
        if self.deadline <= now:
            self.expire()
        return not self.answered


def grouping(signature: Signature) -> Callable[[Tensors], Group]:
    """A function that tells the group of checked inputs; constant time for a model without further free axes."""
    free = [
        (spec.name, [axis for axis, size in enumerate(spec.shape) if size is None and axis > 0])
        for spec in signature.inputs
        if None in spec.shape[1:]
    ]
    if not free:
        return lambda inputs: ()  # noqa: ARG005  # every request fits every other
    return lambda inputs: tuple(tuple(inputs[name].shape[axis] for axis in axes) for name, axes in free)


class JobQueue:
    """Waiting jobs by group, each group in order of arrival. Event loop only."""

    def __init__(self, max_rows: int) -> None:
        self._max_rows = max_rows
        self._groups: dict[Group, deque[Job]] = {}
        self.rows = 0

    def __bool__(self) -> bool:
        return self.rows > 0

    def __iter__(self) -> Iterator[Job]:
        """All that wait, in no order."""
        return chain.from_iterable(self._groups.values())

    def add(self, job: Job) -> None:
        """Put a job at the end of its group."""
        group = self._groups.get(job.group)
        if group is None:
            group = self._groups[job.group] = deque()
        group.append(job)
        self.rows += job.rows

    def take(self, now: float, *, everything: bool = False) -> list[Job]:
        """The next batch: of the groups that are full or need not wait longer the one with the oldest job; never dead jobs.

        Args:
            now: `time.monotonic()` seconds.
            everything: do not wait for company.
        """
        if everything and len(self._groups) == 1:
            (group,) = self._groups.values()
            batch = self._fill(group, now)
            if batch or not self._groups:
                return batch
        while self._groups:
            ready = [group for group in self._groups.values() if everything or self._is_ready(group, now)]
            if not ready:
                return []
            batch = self._fill(min(ready, key=lambda group: group[0].submitted), now)
            if batch:
                return batch
        return []

    def top_up(self, batch: list[Job], now: float) -> None:
        """Add jobs of its group to a batch that has room left."""
        group = self._groups.get(batch[0].group)
        if group:
            batch.extend(self._fill(group, now, sum(job.rows for job in batch)))

    @property
    def requests(self) -> int:
        """How many wait; from any thread."""
        return sum(map(len, list(self._groups.values())))

    def next_turn(self) -> float:
        """When the first group stops waiting for company; infinity if nothing waits."""
        return min((job.leave_by for group in self._groups.values() for job in group), default=math.inf)

    def sweep(self, now: float) -> None:
        """Forget jobs whose caller left or whose deadline passed."""
        late: list[Job] = []
        for key, group in list(self._groups.items()):
            late += [job for job in group if job.deadline <= now]
            living = deque(job for job in group if not job.answered and job.deadline > now)
            self.rows -= sum(job.rows for job in group) - sum(job.rows for job in living)
            self._keep(key, living)
        _expire(late)

    def drain(self) -> list[Job]:
        """Take all jobs out."""
        jobs = [job for group in self._groups.values() for job in group]
        self._groups.clear()
        self.rows = 0
        return jobs

    def _is_ready(self, group: Sequence[Job], now: float) -> bool:
        if min(job.leave_by for job in group) <= now:
            return True
        return sum(job.rows for job in group) >= self._max_rows

    def _fill(self, group: deque[Job], now: float, rows: int = 0) -> list[Job]:
        key, batch = group[0].group, []
        late: list[Job] = []
        while group and rows + group[0].rows <= self._max_rows:
            job = group.popleft()
            self.rows -= job.rows
            if job.deadline <= now:
                late.append(job)
            elif not job.answered:
                batch.append(job)
                rows += job.rows
        self._keep(key, group)
        _expire(late)
        return batch

    def _keep(self, key: Group, group: deque[Job]) -> None:
        if group:
            self._groups[key] = group
        else:
            self._groups.pop(key, None)


def _expire(late: Sequence[Job]) -> None:
    """Answer these when the queue is in order again: who hears of one may add the next at once."""
    for job in late:
        job.expire()


class PriorityQueue:
    """Waiting jobs by priority: the first level that has a batch goes, and takes along what fits of the others.

    The same methods as `JobQueue`, one of which stands behind each level.
    """

    def __init__(self, max_rows: int, levels: int) -> None:
        self._levels = [JobQueue(max_rows) for _ in range(levels)]

    @property
    def rows(self) -> int:
        """Rows of all levels."""
        return sum(level.rows for level in self._levels)

    @property
    def requests(self) -> int:
        """See `JobQueue.requests`."""
        return sum(level.requests for level in self._levels)

    def __bool__(self) -> bool:
        return any(self._levels)

    def __iter__(self) -> Iterator[Job]:
        """See `JobQueue.__iter__`."""
        return chain.from_iterable(self._levels)

    def add(self, job: Job) -> None:
        """See `JobQueue.add`."""
        self._levels[job.priority - 1].add(job)

    def take(self, now: float, *, everything: bool = False) -> list[Job]:
        """See `JobQueue.take`."""
        for level in self._levels:
            batch = level.take(now, everything=everything)
            if batch:
                for other in self._levels:
                    other.top_up(batch, now)
                return batch
        return []

    def next_turn(self) -> float:
        """See `JobQueue.next_turn`."""
        return min(level.next_turn() for level in self._levels)

    def sweep(self, now: float) -> None:
        """See `JobQueue.sweep`."""
        for level in self._levels:
            level.sweep(now)

    def drain(self) -> list[Job]:
        """See `JobQueue.drain`."""
        return [job for level in self._levels for job in level.drain()]
