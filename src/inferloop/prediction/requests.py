"""What requests change about the models that are open: each load to its end before the next one begins."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from inferloop.core.errors import EngineError, InvalidBundle
from inferloop.prediction.catalog import NO_OVERRIDE, Catalog, Changes, Override
from inferloop.prediction.convergence import Convergence
from inferloop.prediction.routes import Routes


class Requests(Changes):
    """Carries out the requests that reach one Router. Event loop only.

    Whose request to load a model is granted finds it answering, however many ask for it at once. A request to unload does not
    wait for a load: what it closes in the middle of one stays closed.
    """

    def __init__(self, convergence: Convergence, routes: Routes, catalogs: Sequence[Catalog]) -> None:
        self._convergence = convergence
        self._routes = routes
        self._catalogs = catalogs
        self._loading = asyncio.Lock()

    async def load(self, name: str, *, override: Override = NO_OVERRIDE) -> None:
        """See `Router.load`."""
        async with self._loading:
            routes = self._routes.of(name)
            try:
                if not routes:
                    await self._convergence.open(name, override=override, by_name=True)
                for route in routes:
                    await self._convergence.in_thread(route.catalog.request, name, override)
                    await self._convergence.bring(route, strict=True)
            except BaseException as error:
                if await self._convergence.settle(name, granted=False):
                    for route in routes:  # what was there before is what would be loaded next
                        await self._convergence.bring(route, strict=False)
                if override.files and isinstance(error, EngineError):
                    raise InvalidBundle(error.message, hint=error.hint) from error
                raise
            await self._convergence.settle(name, granted=True)

    async def unload(self, name: str, *, dependents: bool = False) -> None:
        """See `Router.unload`."""
        routes = self._routes.of(name) if dependents else []
        steps = [step.model for route in routes for step in route.catalog.settings(name).ensemble]
        await self._release(name)
        self._convergence.close(self._routes.of(name), reason="unloaded")  # those too that were opened meanwhile
        for model in dict.fromkeys(steps):
            await self.unload(model, dependents=True)

    async def _release(self, name: str) -> None:
        for catalog in self._catalogs:
            await self._convergence.in_thread(catalog.release, name)
