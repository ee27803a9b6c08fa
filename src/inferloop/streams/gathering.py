"""Samples into windows, durably: a sample is done when the journal has it; a window is there until it is decided."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from inferloop.core.bundle import Bundle
from inferloop.core.clock import SYSTEM, Clock
from inferloop.core.errors import InvalidConfig, InvalidInput
from inferloop.data.journal import StoredDecision
from inferloop.streams.journaling import JournalThread, write_decided
from inferloop.streams.loading import PipelineSpec
from inferloop.streams.scope import event_time
from inferloop.streams.windows import Window, Windows
from inferloop.streams.work import Work

_SIZED = ("window", "vector")


def windows_of(spec: PipelineSpec, bundle: Bundle | None, stored: Mapping[str, bytes]) -> Windows | None:
    """The windows that the file declares; None if it declares none.

    Args:
        spec: the pipeline.
        bundle: says how long a signal is where the file does not.
        stored: the state in the journal.

    Raises:
        InvalidConfig: neither says how long a window is, or they differ.
    """
    section = spec.window
    if section is None:
        return None
    length = section.length or (None if bundle is None else _length(spec, bundle))
    if length is None:
        raise InvalidConfig(
            [f"{spec.path}: window: the model does not say how long its signal is"], hint="say it with window.length"
        )
    fields = tuple(dict.fromkeys(spec.model.inputs.values()))
    return Windows(fields, length=length, hop=section.hop, by=section.by, gap_s=section.gap, stored=stored)


def _length(spec: PipelineSpec, bundle: Bundle) -> int | None:
    signals = [transform for transform in bundle.manifest.transforms.inputs if transform.field in spec.model.inputs]
    steps = [step for transform in signals for step in transform.steps if step.op in _SIZED]
    sizes = {step.options["size"] for step in steps if step.options.get("size")}
    if len(sizes) > 1:
        raise InvalidConfig([f"{spec.path}: window: the model's signals have different lengths: {sorted(sizes)}"])
    return int(sizes.pop()) if sizes else None


class Gatherer:
    """Takes samples out of a stream of work and puts windows in."""

    def __init__(self, pipeline: str, windows: Windows, journal: JournalThread, clock: Clock = SYSTEM) -> None:
        self._pipeline = pipeline
        self._windows = windows
        self._journal = journal
        self._clock = clock

    def due(self) -> list[Work]:
        """Windows of an earlier run that wait for their decision."""
        return [_work(window) for window in self._windows.take_due()]

    async def gather(self, samples: Sequence[Work], positions: Mapping[str, bytes]) -> list[Work]:
        """Take samples; on disk when it returns. A sample that cannot be taken gets its error, every other one its decision.

        Returns:
            The windows that they complete.
        """
        made: list[tuple[list[Work], dict[str, bytes]]] = []

        def add_and_write() -> list[Work]:
            if not made:  # a failed write is tried again with the same windows
                made.append((self._add(samples), self._windows.take_changes()))
            windows, state = made[0]
            write_decided(self._journal.journal, self._pipeline, samples, {**state, **positions})
            return windows

        return await self._journal.call(add_and_write) if samples else []

    def _add(self, samples: Sequence[Work]) -> list[Work]:
        windows: list[Work] = []
        now = self._clock.time()
        for work in samples:
            sample = work.sample
            if sample is None:
                continue
            time = event_time(sample, work.message.received)
            try:
                outcome, whole = self._windows.add(work.id, sample, work.message, time)
            except InvalidInput as error:
                work.error, work.error_kind = error, "window"
                continue
            work.decision = StoredDecision(self._pipeline, work.id, sample.key, now, "", outcome, "", 0.0, "", ())
            windows += [_work(window) for window in whole]
        return windows


def _work(window: Window) -> Work:
    return Work(window.id, sample=window.sample, origin=window.origin, clears=window.due)
