"""The open sequences of one model version: who is next, with which state, and who was silent for too long."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Callable

from inferloop.core.datatypes import Tensors
from inferloop.core.errors import DeadlineExceeded, InvalidInput, Overloaded
from inferloop.prediction.options import SequenceStep
from inferloop.prediction.settings import SequenceSettings


class Sequence:
    """One open sequence: its state, and its requests one after another in the order of their arrival. Event loop only.

    Attributes:
        state: the state tensors for its next request.
        used: when its last request came or was answered, `time.monotonic()` seconds.
    """

    def __init__(self, state: Tensors, now: float) -> None:
        self.state = state
        self.used = now
        self._taken = False
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def is_idle(self) -> bool:
        """Whether none of its requests waits or runs."""
        return not self._taken

    async def turn(self, deadline: float | None) -> None:
        """Wait until every earlier request has its answer; end the turn with `end_turn`.

        Raises:
            DeadlineExceeded: the deadline passed first.
        """
        if not self._taken:
            self._taken = True
            return
        loop = asyncio.get_running_loop()
        mine = loop.create_future()
        timer = None if deadline is None else loop.call_later(deadline - time.monotonic(), _expire, mine)
        self._waiting.append(mine)
        try:
            await mine
        except BaseException:
            if mine.done() and not mine.cancelled() and mine.exception() is None:
                self.end_turn()  # it was our turn already when our caller left
            raise
        finally:
            if timer is not None:
                timer.cancel()

    def end_turn(self) -> None:
        """Let the next request go."""
        self.used = time.monotonic()
        while self._waiting:
            following = self._waiting.popleft()
            if not following.done():
                following.set_result(None)
                return
        self._taken = False


class Sequences:
    """The open sequences by id. Event loop only.

    Args:
        initial: makes the state of a new sequence.
    """

    def __init__(self, settings: SequenceSettings, initial: Callable[[], Tensors], *, model: str) -> None:
        self._settings = settings
        self._initial = initial
        self._model = model
        self._open: OrderedDict[int | str, Sequence] = OrderedDict()
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._open)

    def enter(self, step: SequenceStep | None) -> Sequence:
        """The sequence of a request that has come; one that ends it leaves the table at once, and a start begins anew.

        Raises:
            InvalidInput: no id, or no sequence of that id is open.
            Overloaded: too many are open.
        """
        if step is None or not step.id:
            raise InvalidInput(
                f"model {self._model!r} keeps state, a request must name its sequence", hint="send a sequence_id other than 0"
            )
        now = time.monotonic()
        self._forget(now)
        sequence = self._begin(step, now) if step.start else self._find(step)
        sequence.used = now
        if step.end:
            self._open.pop(step.id, None)
        else:
            self._open[step.id] = sequence
            self._open.move_to_end(step.id)
            self._watch()
        return sequence

    def close(self) -> None:
        """Forget all of them."""
        self._open.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _begin(self, step: SequenceStep, now: float) -> Sequence:
        if len(self._open) >= self._settings.max_sequences and step.id not in self._open:
            raise Overloaded(
                f"{len(self._open)} sequences of model {self._model!r} are open, which is the limit",
                hint="end sequences that are over, or raise max_sequences",
            )
        return Sequence(self._initial(), now)

    def _find(self, step: SequenceStep) -> Sequence:
        if step.id not in self._open:
            raise InvalidInput(
                f"sequence {step.id} of model {self._model!r} is not open",
                hint=f"begin it with sequence_start; one that is silent for {self._settings.max_idle_s:g} s is forgotten",
            )
        return self._open[step.id]

    def _forget(self, now: float) -> None:
        """Drop those that were silent for too long; the table is in the order of the last arrivals."""
        for id_, sequence in list(self._open.items()):
            if sequence.used + self._settings.max_idle_s > now:
                break
            if sequence.is_idle:
                del self._open[id_]

    def _watch(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._settings.max_idle_s, self._look)

    def _look(self) -> None:
        self._timer = None
        self._forget(time.monotonic())
        if self._open:
            self._watch()


def _expire(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_exception(DeadlineExceeded("the deadline passed while earlier requests of the sequence were answered"))
