"""Runs on an event loop, for those who await a Predictor: batched with others, remembered, one of a sequence, or a stream."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from typing import cast

from inferloop.core.datatypes import Tensors
from inferloop.core.errors import InvalidInput, Unavailable, Unsupported
from inferloop.core.protocols import Session
from inferloop.core.signature import Signature
from inferloop.prediction.batcher import Batcher
from inferloop.prediction.cache import AnswerCache
from inferloop.prediction.cache import key_of as cache_key
from inferloop.prediction.limits import Limits
from inferloop.prediction.meter import Meter
from inferloop.prediction.options import Options
from inferloop.prediction.sequence.contract import Contract
from inferloop.prediction.sequence.stateful import Stateful
from inferloop.prediction.settings import ModelSettings, SequenceSettings
from inferloop.prediction.streaming import Streamer


class LoopedRuns:
    """Runs the sessions of one model for callers on one event loop; everything is made with the first request there.

    Args:
        sessions: with verdicts, where the model has some to give.
        bare: the same without.
        signature: what callers send and get, without the state that is kept for them.
        contract: the tensors of the state; None for a model without.
        inline: whether the engine may run on the event loop.

    Attributes:
        special: whether a request needs more than a batch: `run` is the way in then, else `batcher`.
    """

    def __init__(
        self,
        sessions: Sequence[Session],
        bare: Sequence[Session],
        *,
        name: str,
        signature: Signature,
        limits: Limits,
        settings: ModelSettings,
        contract: Contract | None,
        inline: bool,
        meter: Meter,
    ) -> None:
        self._sessions = sessions
        self._bare = bare
        self._name = name
        self._signature = signature
        self._batched = signature.batched
        self._limits = limits
        self._settings = settings
        self._contract = contract
        self._inline = inline
        self._meter = meter
        self._batcher: Batcher | None = None
        self._streamer: Streamer | None = None
        self._stateful: Stateful | None = None
        plain = contract is None and not settings.decoupled
        self._cache = AnswerCache(settings.cache_bytes) if settings.cached and plain else None
        self._closed = False
        self.special = not plain or self._cache is not None

    @property
    def waiting(self) -> int:
        """Requests that wait for the engine."""
        return 0 if self._batcher is None else self._batcher.waiting

    def batcher(self) -> Batcher:
        """The batcher of this event loop; a new one if the loop of the last one is gone.

        Raises:
            Unavailable: closed.
            Unsupported: another event loop has it.
        """
        if self._batcher is not None and self._batcher.loop is asyncio.get_running_loop():
            return self._batcher
        if self._closed:
            raise self._refusal()
        if self._batcher is not None:
            if not self._batcher.loop.is_closed():
                raise Unsupported("a predictor answers on one event loop at a time", hint="load one for each loop")
            self._batcher.abandon()
        self._batcher = Batcher(
            self._sessions,
            max_batch=self._limits.max_batch,
            max_delay_s=self._limits.max_delay_s,
            queue_rows=self._limits.queue_rows,
            inline=self._inline,
            meter=self._meter,
            priority_levels=self._settings.priority_levels,
            default_priority=self._settings.default_priority,
            queue_timeout_s=self._settings.queue_timeout_s,
        )
        return self._batcher

    def rows(self, outputs: Tensors) -> int:
        """How many rows outputs have; 1 for a model without a batch axis."""
        return len(next(iter(outputs.values()))) if self._batched else 1

    async def run(self, tensors: Tensors, options: Options, *, deadline: float | None) -> Tensors:
        """The outputs of a request that is `special`; errors as `Batcher.submit` and `Stateful.run`.

        Raises:
            Unsupported: the model is decoupled.
        """
        if self._settings.decoupled:
            raise Unsupported(
                "HTTP end point doesn't support models with decoupled transaction policy",
                hint=f"model {self._name!r} gives several answers to one request: ask for a stream",
            )
        if self._contract is not None:
            return await self._state(self._contract).run(self._submit, tensors, options, deadline=deadline)
        return await self._remembered(tensors, options, deadline)

    def stream(self, tensors: Tensors, rows: int, *, deadline: float | None) -> AsyncGenerator[Tensors, None]:
        """The answers to checked tensors; errors as `Streamer.stream`.

        Raises:
            InvalidInput: more rows than one run takes.
            Unavailable: closed.
        """
        if self._signature.batched and rows > self._limits.max_batch:
            raise InvalidInput(f"{rows} rows in one request, the limit is {self._limits.max_batch}")
        if self._closed:
            raise self._refusal()
        if self._streamer is None:
            self._streamer = Streamer(self._bare, max_waiting=self._limits.queue_rows, meter=self._meter)
        return self._streamer.stream(tensors, rows, deadline=deadline)

    def close(self) -> None:
        """Take nothing more and let the threads end. A second call does nothing."""
        self._closed = True
        if self._batcher is not None and self._batcher.loop.is_closed():
            self._batcher.abandon()
        if self._streamer is not None:
            self._streamer.abandon()
        self._forget()

    async def aclose(self, *, grace_s: float) -> bool:
        """Take nothing more, answer what was accepted, refuse what is left after `grace_s`; whether the sessions are free."""
        self._closed = True
        is_free = self._batcher is None or await self._batcher.close(grace_s=grace_s)
        if self._streamer is not None:
            is_free = await self._streamer.aclose(grace_s=grace_s) and is_free
        self._forget()
        return is_free

    def _forget(self) -> None:
        if self._stateful is not None:
            self._stateful.sequences.close()

    def _refusal(self) -> Unavailable:
        return Unavailable(f"the predictor of {self._name!r} is closed")

    def _submit(self, tensors: Tensors, options: Options, deadline: float | None) -> asyncio.Future[Tensors]:
        return self.batcher().submit(tensors, deadline=deadline, priority=options.priority, timeline=options.timeline)

    async def _remembered(self, tensors: Tensors, options: Options, deadline: float | None) -> Tensors:
        cache = cast("AnswerCache", self._cache)
        started = time.perf_counter()
        self._signature.check(tensors)
        key = cache_key(tensors)
        outputs = cache.get(key)
        if outputs is not None and not self._closed:
            self._meter.cached(time.perf_counter() - started, hit=True)
            return outputs
        looked_s = time.perf_counter() - started
        outputs = await self._submit(tensors, options, deadline)
        started = time.perf_counter()
        cache.put(key, outputs)
        self._meter.cached(looked_s + time.perf_counter() - started, hit=False)
        return outputs

    def _state(self, contract: Contract) -> Stateful:
        """The sequences; those of an event loop that is gone are gone with it."""
        before = self._batcher
        batcher = self.batcher()
        if self._stateful is None or batcher is not before:
            settings = self._settings.sequence or SequenceSettings()
            waiting = self._limits.queue_rows
            self._stateful = Stateful(contract, settings, self._signature, model=self._name, max_waiting=waiting)
        return self._stateful
