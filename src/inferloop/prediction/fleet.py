"""The versions that are loaded: each once, kept while a reference routes to it, closed after its last request."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from inferloop.prediction.live import Loaded
from inferloop.prediction.memory import give_back, keep_large_apart
from inferloop.prediction.servable import Servable

log = logging.getLogger(__name__)

Identity = tuple[str, int, str]
"""Where the model is from, its version, and the stamp of what stands behind that number."""


class Fleet:
    """Loaded versions by what they are. Event loop only.

    Args:
        drain_s: how long a version that is no longer used may take for what it has accepted.
    """

    def __init__(self, *, drain_s: float) -> None:
        keep_large_apart()
        self._drain_s = drain_s
        self._loaded: dict[Identity, Loaded] = {}
        self._leaving: set[Loaded] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def get(self, identity: Identity, load: Callable[[], Awaitable[Servable]]) -> Loaded:
        """The version of that identity; `load` makes it if it is not loaded yet, or cannot answer any more."""
        if identity in self._loaded and self._loaded[identity].predictor.problem:
            self._close(identity)
        if identity not in self._loaded:
            started = time.perf_counter()
            predictor = await load()
            self._loaded[identity] = Loaded(predictor)
            facts = {"model": predictor.name, "version": predictor.version, "load_s": time.perf_counter() - started}
            log.info("model loaded", extra=facts)
        return self._loaded[identity]

    def keep(self, used: set[Loaded]) -> None:
        """Close every other version, each after its last request."""
        for identity, loaded in list(self._loaded.items()):
            if loaded not in used:
                self._close(identity)

    def leaving(self) -> list[tuple[str, int]]:
        """Name and version of those that are being closed."""
        return [(loaded.predictor.name, loaded.predictor.version) for loaded in self._leaving]

    async def aclose(self) -> None:
        """Close all versions; returns when the last one is."""
        self.keep(set())
        await self.settled()

    async def settled(self) -> None:
        """Wait until what is being closed is closed and its memory given back."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _close(self, identity: Identity) -> None:
        loaded = self._loaded.pop(identity)
        self._leaving.add(loaded)
        task = asyncio.create_task(self._retire(loaded))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _retire(self, loaded: Loaded) -> None:
        facts = {"model": loaded.predictor.name, "version": loaded.predictor.version}
        try:
            await loaded.retire(grace_s=self._drain_s)
        finally:
            self._leaving.discard(loaded)
        log.info("model unloaded", extra=facts)
        del loaded
        await asyncio.to_thread(give_back)
