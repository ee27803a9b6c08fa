"""A loaded and warmed-up session: proven against the golden rows, usable from several threads, measured."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Sequence

import numpy as np

from inferloop.core import plugins
from inferloop.core.bundle import GOLDEN, Bundle
from inferloop.core.datatypes import Array, DataType, Tensors
from inferloop.core.errors import EngineError
from inferloop.core.protocols import Engine, Session, StreamingSession
from inferloop.core.signature import Signature
from inferloop.core.target import Target
from inferloop.prediction.settings import Isolation, ModelSettings

log = logging.getLogger(__name__)

INLINE_BELOW_S = 0.00025
"""A model may run on the event loop if its largest batch takes less than this; a thread's round trip costs a tenth."""
TOLERANCE = 1e-3
"""Allowed difference from the golden outputs, per unit of their scale. A wrong model is off by far more."""


class ExclusiveSession(Session):
    """Lets one caller at a time run the session, from any thread; the others wait."""

    def __init__(self, session: Session) -> None:
        self.signature = session.signature
        self._session = session
        self._lock = threading.Lock()

    def run(self, inputs: Tensors) -> dict[str, Array]:
        """See `Session.run`."""
        with self._lock:
            return self._session.run(inputs)

    def close(self) -> None:
        """See `Session.close`; waits for a run to end."""
        with self._lock:
            self._session.close()

    @property
    def problem(self) -> str:
        """Why no run can succeed any more; empty as long as one can."""
        return str(getattr(self._session, "problem", ""))


class ExclusiveStream(ExclusiveSession, StreamingSession):
    """The same for a session that streams: a stream has it until its end."""

    def stream(self, inputs: Tensors) -> Iterator[dict[str, Array]]:
        """See `StreamingSession.stream`."""
        with self._lock:
            yield from self._session.stream(inputs)  # type: ignore[attr-defined]  # asked before it was wrapped


def open_sessions(bundle: Bundle, target: Target, settings: ModelSettings) -> list[Session]:
    """As many sessions as there are instances; the same one again where it may run concurrently. Errors as `open_session`."""
    engine = engine_for(target, settings.isolation)
    sessions = [open_session(bundle, target, engine)]
    if is_concurrent(sessions[0]):
        return sessions * settings.instances
    try:
        while len(sessions) < settings.instances:
            sessions.append(open_session(bundle, target, engine))
    except Exception:
        close_all(sessions)
        raise
    return sessions


def close_all(sessions: Sequence[Session]) -> None:
    """Close each once; for one that appears twice a second call does nothing."""
    for session in sessions:
        session.close()


def is_concurrent(session: Session) -> bool:
    """Whether several threads may run it at once."""
    return bool(getattr(session, "concurrent", False))


def engine_for(target: Target, isolation: Isolation) -> Engine:
    """The engine of a target, for the sessions of one model. Raises `NotFound`, `MissingDependency`."""
    if isolation is Isolation.PROCESS:
        from inferloop.prediction.isolation.isolated import IsolatedEngine

        return IsolatedEngine()
    engine: Engine = plugins.load("engines", target.engine)()
    return engine


def problem(sessions: Sequence[Session]) -> str:
    """Why none of the sessions of one model can answer any more; empty as long as they can."""
    return str(getattr(sessions[0], "problem", ""))


def open_session(bundle: Bundle, target: Target, engine: Engine | None = None) -> Session:
    """Load a bundle on a target, by default with its own engine, and hold it against its golden rows, which also warms it up.

    Raises:
        NotFound, MissingDependency, Unsupported: no such engine, device or precision.
        EngineError: the engine cannot read the model, or computes something else than its golden outputs.
    """
    session = (engine or engine_for(target, Isolation.THREAD)).load(bundle, target)
    session = session if is_concurrent(session) else _exclusive(session)
    if GOLDEN not in bundle.manifest.files:
        log.warning("bundle without golden rows, not verified", extra={"model": bundle.name, "version": bundle.version})
        return session
    try:
        parity = bundle.verify(session, tolerance=TOLERANCE)
        if not parity.passed:
            worst = max(parity.max_error, key=lambda name: parity.max_error[name])
            raise EngineError(
                f"{target} computes {worst!r} of {bundle.name!r} with an error of {parity.max_error[worst]:.3g} "
                f"against the golden rows"
            )
    except Exception:
        session.close()
        raise
    return session


def warm_up(sessions: Sequence[Session], bundle: Bundle, sizes: Sequence[int]) -> None:
    """Run batches of these sizes in every session: golden rows, or zeros where there are none."""
    if not sizes:
        return
    rows = _golden(bundle) if GOLDEN in bundle.manifest.files else _zeros(bundle.signature)
    for session in dict.fromkeys(sessions):
        for size in sizes if bundle.signature.batched else sizes[:1]:
            session.run(_resized(rows, size) if bundle.signature.batched else rows)


def is_tiny(session: Session, bundle: Bundle, max_batch: int) -> bool:
    """Whether the largest batch that `session` would get is quick enough for the event loop; measured on golden rows.

    Raises:
        InvalidBundle: the scores do not fit the labels; found here, before the first request.
    """
    if GOLDEN not in bundle.manifest.files:
        return False
    golden = _golden(bundle)
    if not bundle.signature.batched:
        session.run(golden)
        return False
    if _best_run_s(session, {name: array[:1] for name, array in golden.items()}) > INLINE_BELOW_S:
        return False
    return _best_run_s(session, _resized(golden, max_batch)) < INLINE_BELOW_S


def _golden(bundle: Bundle) -> Tensors:
    return {name.removeprefix("inputs/"): array for name, array in bundle.arrays(GOLDEN).items() if name.startswith("inputs/")}


def _zeros(signature: Signature) -> Tensors:
    shapes = {spec: tuple(1 if size is None else size for size in spec.shape) for spec in signature.inputs}
    return {
        spec.name: np.full(shape, b"" if spec.dtype is DataType.BYTES else 0, spec.dtype.numpy) for spec, shape in shapes.items()
    }


def _resized(rows: Tensors, size: int) -> Tensors:
    return {name: np.resize(array, (size, *array.shape[1:])) for name, array in rows.items()}


def _exclusive(session: Session) -> Session:
    return ExclusiveStream(session) if callable(getattr(session, "stream", None)) else ExclusiveSession(session)


def _best_run_s(session: Session, inputs: Tensors) -> float:
    """The shortest of a few runs, in seconds: on a busy machine the others measure the neighbors."""
    times = []
    for _ in range(5):
        started = time.perf_counter()
        session.run(inputs)
        times.append(time.perf_counter() - started)
    return min(times)
