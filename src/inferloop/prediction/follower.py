"""Asks the catalogs again and again whether something changed."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence

from inferloop.prediction.catalog import Catalog
from inferloop.prediction.convergence import Convergence
from inferloop.prediction.routes import Routes

log = logging.getLogger(__name__)

RETRY_S = 30.0


class Follower:
    """One task that brings the routes of a catalog in line whenever its generation moves. Event loop only.

    A version that could not be loaded is tried again when its catalog changes, and every `RETRY_S` seconds.
    """

    def __init__(self, convergence: Convergence, routes: Routes, catalogs: Sequence[Catalog], *, poll_s: float) -> None:
        self._convergence = convergence
        self._routes = routes
        self._watches = [_Watch(catalog) for catalog in catalogs]
        self._poll_s = poll_s
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin. A second call does nothing."""
        if self._task is None:
            self._task = asyncio.create_task(self._follow(), name="inferloop-router")

    async def aclose(self) -> None:
        """End. A second call does nothing."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(self._poll_s)
            for watch in self._watches:
                try:
                    await self._look(watch)
                    watch.problem = ""
                except Exception as error:  # the watcher outlives a catalog that cannot be read for a while
                    if str(error) != watch.problem:
                        log.exception("models not followed")
                    watch.problem = str(error)

    async def _look(self, watch: _Watch) -> None:
        generation = await self._convergence.in_thread(watch.catalog.generation)
        broken = any(route.problem for route in self._routes if route.catalog is watch.catalog)
        if generation == watch.seen and not (broken and time.monotonic() >= watch.retry_at):
            return
        watch.seen, watch.retry_at = generation, time.monotonic() + RETRY_S
        await self._convergence.follow(watch.catalog)


class _Watch:
    """What was last seen of one catalog."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self.seen = -1
        self.retry_at = 0.0
        self.problem = ""
