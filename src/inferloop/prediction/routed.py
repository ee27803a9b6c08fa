"""One request of tensors at the version that shall answer it, which is not closed meanwhile."""

from __future__ import annotations

from collections.abc import Callable

from inferloop.core.work import Done, Work
from inferloop.prediction.live import Loaded
from inferloop.prediction.prediction import Inference


class Routed(Work[Inference]):
    """Holds a version from the start of a request to its answer.

    Args:
        work: the request.
        loaded: what answers it.
        then: called after a good answer; None for nothing.
    """

    __slots__ = ("_done", "_loaded", "_then", "_work")

    _done: Done[Inference]

    def __init__(self, work: Work[Inference], loaded: Loaded, then: Callable[[], None] | None) -> None:
        self._work: Work[Inference] | None = work
        self._loaded = loaded
        self._then = then

    def start(self, done: Done[Inference]) -> None:
        """See `Work.start`."""
        if self._work is not None:
            self._done = done
            self._loaded.take()
            self._work.start(self._take)

    def cancel(self) -> None:
        """See `Work.cancel`."""
        if self._work is not None:
            self._work.cancel()

    def _take(self, answer: Inference | None, error: BaseException | None) -> None:
        self._work = None  # it knows us: no circle for the garbage collector
        self._loaded.release()
        if error is None and self._then is not None:
            self._then()
        self._done(answer, error)
