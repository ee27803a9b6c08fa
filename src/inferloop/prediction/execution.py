"""One run of a session for several jobs: stack, run, check, split; and whom to blame when it fails."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

import numpy as np

from inferloop.core.datatypes import Tensors
from inferloop.core.errors import Cancelled, EngineError, InferloopError
from inferloop.core.protocols import Session
from inferloop.prediction.jobs import Job
from inferloop.prediction.meter import Meter
from inferloop.prediction.verdicts import JudgedSession

log = logging.getLogger(__name__)

Outcome = Tensors | InferloopError


def execute(session: Session, jobs: Sequence[Job], meter: Meter | None = None) -> list[Outcome]:
    """Run all jobs, in one batch if it works.

    A batch of several that fails is run again one job at a time, so that only the guilty ones fail. Called from one thread
    at a time.

    Returns:
        Outputs or an error for each job, in their order. Outputs are views of the batch's.
    """
    if len(jobs) == 1:
        return [_attempt(_asked(session, jobs[0].judged), jobs[0], meter)]
    session = _asked(session, any(job.judged for job in jobs))
    started = time.perf_counter()
    rows = sum(job.rows for job in jobs)
    try:
        inputs = _stack(jobs)
        stacked = time.perf_counter()
        outputs = session.run(inputs)
        ran = time.perf_counter()
        _check(session, outputs, rows)
    except Exception as error:  # whatever an engine raises, each job of its batch gets an answer
        log.warning("batch failed, running its requests one by one", extra={"requests": len(jobs), "error": str(error)})
        if meter is not None:
            meter.engine_failed()
        return [_attempt(session, job, meter) for job in jobs]
    outcomes = _split(outputs, jobs)
    if meter is not None:
        split_s = time.perf_counter() - ran
        meter.ran(ran - stacked, rows=rows, requests=len(jobs), input_s=stacked - started, output_s=split_s)
    return outcomes


def engine_error(error: BaseException) -> InferloopError:
    """What the caller is told; what is not one of our errors is logged with its traceback and not shown."""
    if isinstance(error, InferloopError):
        return error
    log.error("engine raised %s", type(error).__name__, exc_info=error)
    return EngineError(f"the engine failed with {type(error).__name__}")


def engine_errors(error: BaseException, count: int) -> list[Outcome]:
    """The same for each job of a batch: an exception belongs to one caller only."""
    first = engine_error(error)
    return [first, *(type(first)(first.message, hint=first.hint) for _ in range(count - 1))]


def _asked(session: Session, judged: bool) -> Session:
    """The session without its verdicts where nobody wants them."""
    return session.plain if not judged and isinstance(session, JudgedSession) else session


def _attempt(session: Session, job: Job, meter: Meter | None) -> Outcome:
    if job.answered:
        return Cancelled("not run: the caller has left")
    started = time.perf_counter()
    try:
        outputs = session.run(job.inputs)
        took_s = time.perf_counter() - started
        _check(session, outputs, job.rows)
    except Exception as error:  # whatever an engine raises, the job gets an answer
        if meter is not None:
            meter.engine_failed()
        return engine_error(error)
    if meter is not None:
        meter.ran(took_s, rows=job.rows)
    return outputs


def _stack(jobs: Sequence[Job]) -> Tensors:
    return {name: np.concatenate([job.inputs[name] for job in jobs]) for name in jobs[0].inputs}


def _split(outputs: Tensors, jobs: Sequence[Job]) -> list[Outcome]:
    parts: list[Outcome] = []
    start = 0
    for job in jobs:
        end = start + job.rows
        parts.append({name: array[start:end] for name, array in outputs.items()})
        start = end
    return parts


def _check(session: Session, outputs: Tensors, rows: int) -> None:
    """An engine that loses rows must not shift the answers of others."""
    for spec in session.signature.outputs:
        if spec.name not in outputs:
            raise EngineError(f"the engine gave no output {spec.name!r}")
        if session.signature.batched and len(outputs[spec.name]) != rows:
            raise EngineError(f"the engine gave {len(outputs[spec.name])} rows of {spec.name!r} for {rows} rows")
