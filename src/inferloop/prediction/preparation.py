"""Samples to tensors without holding up the event loop: there while that is quick, in a small pool when it is not."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from inferloop.core.datatypes import Tensors
from inferloop.core.errors import InferloopError, Overloaded
from inferloop.core.sample import Sample
from inferloop.core.transform import FieldKind

SLOW_S = 0.001
_SLOW_MANY_S = 0.005
_LARGE_BYTES = 64 * 1024
_DECODED = {FieldKind.IMAGE, FieldKind.AUDIO}


class Preparation:
    """Decides where a transform runs from how long the last ones took. Event loop only, but for the transform itself.

    Args:
        transform: makes the tensors of one Sample; called from any thread.
        kinds: the kinds of the fields; images and recordings start in the pool.
        max_waiting: samples that may wait for the pool; above it `tensors` raises `Overloaded`.
    """

    def __init__(self, transform: Callable[[Sample], Tensors], kinds: set[FieldKind], *, threads: int, max_waiting: int) -> None:
        self._transform = transform
        self._threads = threads
        self._max_waiting = max_waiting
        self._waiting = 0
        self._average_s = 2 * SLOW_S if kinds & _DECODED else 0.0
        self._pool: ThreadPoolExecutor | None = None

    async def tensors(self, sample: Sample) -> Tensors:
        """The tensors of one Sample.

        Raises:
            InvalidInput: a field is missing or cannot be read.
            Overloaded: too many samples wait for the pool.
        """
        if self._average_s <= SLOW_S and not _is_large(sample):
            return self._timed(sample)
        if self._waiting >= self._max_waiting:
            raise Overloaded(f"{self._waiting} samples wait for their transforms, the limit is {self._max_waiting}")
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="inferloop-transform")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, self._timed, sample)
        finally:
            self._waiting -= 1

    async def many(
        self, samples: Sequence[Sample], transform: Callable[[Sequence[Sample]], list[Tensors | InferloopError]]
    ) -> list[Tensors | InferloopError]:
        """The tensors of several Samples, or why one has none, by a transform that takes them together."""
        expected_s = self._average_s * len(samples)
        started = time.perf_counter()
        if expected_s <= _SLOW_MANY_S and not any(map(_is_large, samples)):
            found = transform(samples)
        else:
            found = await asyncio.to_thread(transform, samples)
        self._average_s += 0.1 * ((time.perf_counter() - started) / max(1, len(samples)) - self._average_s)
        return found

    def close(self) -> None:
        """End the pool's threads; what they have not begun is cancelled."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = None

    def _timed(self, sample: Sample) -> Tensors:
        started = time.perf_counter()
        try:
            return self._transform(sample)
        finally:
            self._average_s += 0.1 * (time.perf_counter() - started - self._average_s)


def _is_large(sample: Sample) -> bool:
    return any(isinstance(value, str | bytes) and len(value) > _LARGE_BYTES for value in sample.fields.values())
