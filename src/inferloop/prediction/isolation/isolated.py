"""A Session whose engine has a process of its own, which is started again when it ends unasked.

run ──> process ──> answer
          │ ends by itself: an error for this run; the keeper starts the next one; the run after this waits for it
          └ for the third time within a minute: no further process, every run is `Unavailable`
"""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections import deque

from inferloop.core.bundle import Bundle
from inferloop.core.datatypes import Array, Tensors
from inferloop.core.errors import EngineError, InferloopError, Unavailable
from inferloop.core.protocols import Engine, Session
from inferloop.core.target import Target
from inferloop.prediction.isolation.process import EngineProcess, ProcessEndedError, how_it_ended

log = logging.getLogger(__name__)

CRASHES = 3
"""So many crashes within `WINDOW_S` seconds, and the model is unavailable until it is loaded again."""
WINDOW_S = 60.0
_RESTART_S = 60.0


class Crashes:
    """The crashes of one model, whichever of its instances they hit. Any thread.

    Attributes:
        count: how many there were.
        problem: why the model is given up; empty as long as it is not.
    """

    def __init__(self, model: str) -> None:
        self.count = 0
        self.problem = ""
        self._model = model
        self._times: deque[float] = deque(maxlen=CRASHES)
        self._lock = threading.Lock()

    def add(self, cause: str) -> None:
        """One more."""
        with self._lock:
            now = time.monotonic()
            self._times.append(now)
            self.count += 1
            facts = {"model": self._model, "cause": cause, "crashes": self.count}
            if len(self._times) == CRASHES and now - self._times[0] <= WINDOW_S:
                self.problem = f"the engine of {self._model!r} crashed {CRASHES} times in {WINDOW_S:g} s, last by {cause}"
                log.error("engine given up", extra=facts)
            else:
                log.warning("engine crashed, starting it again", extra=facts)


class IsolatedEngine(Engine):
    """Loads one model for whatever engine the target names, each session with a process of its own; they share their crashes."""

    def __init__(self) -> None:
        self._crashes: Crashes | None = None

    def load(self, bundle: Bundle, target: Target) -> Session:
        """See `Engine.load`."""
        if self._crashes is None:
            self._crashes = Crashes(bundle.name)
        return IsolatedSession(bundle, target, self._crashes)

    def devices(self) -> tuple[str, ...]:
        """See `Engine.devices`; that depends on the target."""
        return ()


class IsolatedSession(Session):
    """Runs one model in a child process.

    The tensors are copied on the way there and on the way back; the answer belongs to the caller. A run whose process
    crashes raises `EngineError`; the next one waits for the new process.
    """

    def __init__(self, bundle: Bundle, target: Target, crashes: Crashes | None = None) -> None:
        """Start the process and load the model. Blocks.

        Args:
            bundle: the model.
            target: the engine, and where it runs.
            crashes: shared with other instances of the model.

        Raises:
            InferloopError: see `Engine.load`.
        """
        self.signature = bundle.signature
        self._crashes = crashes or Crashes(bundle.name)
        self._keeper = _Keeper(bundle, target, self._crashes)
        self._end = weakref.finalize(self, self._keeper.close)

    @property
    def problem(self) -> str:
        """Why no run can succeed any more; empty as long as one can, also while a new process starts."""
        return self._crashes.problem

    @property
    def pid(self) -> int:
        """The id of the process that answers now, or of the last one."""
        return self._keeper.pid

    @property
    def crashes(self) -> int:
        """How often a process of the model ended by itself."""
        return self._crashes.count

    def run(self, inputs: Tensors) -> dict[str, Array]:
        """See `Session.run`; raises `Unavailable` once it has crashed too often."""
        process = self._keeper.ready()
        try:
            return process.run(inputs)
        except ProcessEndedError as error:
            cause = self._keeper.lost(process)
            raise EngineError(f"the engine's process ended by {cause} during the run", hint="it starts again") from error

    def close(self) -> None:
        """See `Session.close`; does not wait for the process, which ends within seconds."""
        self._end()


class _Keeper:
    """Watches the process from a thread of its own. It does not hold the session: one that is forgotten is closed too."""

    def __init__(self, bundle: Bundle, target: Target, crashes: Crashes) -> None:
        self._bundle = bundle
        self._target = target
        self._process: EngineProcess | None = EngineProcess(bundle, target)
        self.pid = self._process.pid
        self._crashes = crashes
        self._closing = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._watch, args=(self._process,), name="inferloop-isolation", daemon=True)
        self._thread.start()

    def ready(self) -> EngineProcess:
        """The process, as soon as it is there."""
        process = self._process
        if process is None:
            with self._changed:
                self._changed.wait_for(lambda: self._process or self._crashes.problem or self._closing, _RESTART_S)
                process = self._process
        if self._crashes.problem:
            raise Unavailable(self._crashes.problem, hint="load the model again")
        if process is None:
            raise EngineError("the session is closed" if self._closing else "the engine's process does not start")
        return process

    def lost(self, process: EngineProcess) -> str:
        """Use it no longer; says how it ended."""
        with self._changed:
            if self._process is process:
                self._process = None
        return how_it_ended(process.wait())

    def close(self) -> None:
        """End the process; the thread waits for it. A second call does nothing."""
        with self._changed:
            self._closing = True
            process, self._process = self._process, None
            self._changed.notify_all()
        if process is not None:
            process.end()

    def _watch(self, process: EngineProcess | None) -> None:
        """Until it is closed or given up."""
        while process is not None:
            process.watch()
            with self._changed:
                self._process = None
            code = process.wait()
            with self._changed:
                if self._closing:
                    return
                self._crashed(how_it_ended(code))
            process = self._next()

    def _next(self) -> EngineProcess | None:
        """Another process; one that does not come up counts as a crash. None when there is to be none."""
        while not self._crashes.problem and not self._closing:
            try:
                process = EngineProcess(self._bundle, self._target)
            except InferloopError as error:
                with self._changed:
                    self._crashed(error.message)
                continue
            with self._changed:
                if not self._closing:
                    self._process, self.pid = process, process.pid
                    self._changed.notify_all()
                    return process
            process.end()
            process.wait()
        return None

    def _crashed(self, cause: str) -> None:
        """Count it; under the lock."""
        self._crashes.add(cause)
        self._changed.notify_all()
