"""Brings what is open to what the catalogs want, without losing a request.

plan ─ load and warm up beside the traffic ─ swap ─ the old versions answer what they took ─ close them
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from inferloop.core import telemetry
from inferloop.core.bundle import Bundle
from inferloop.core.errors import NotFound
from inferloop.prediction.catalog import NO_OVERRIDE, Catalog, Override
from inferloop.prediction.fleet import Fleet
from inferloop.prediction.live import Live, Loaded
from inferloop.prediction.plan import Plan, Reference
from inferloop.prediction.route import Route
from inferloop.prediction.routes import Routes
from inferloop.prediction.servable import Servable
from inferloop.prediction.settings import ModelSettings

log = logging.getLogger(__name__)

Build = Callable[[Bundle, ModelSettings], Servable]
"""Makes of a Bundle and its settings what answers. Blocks; from any thread."""
_Result = TypeVar("_Result")


class Convergence:
    """Opens, changes and closes routes, one change at a time. Event loop only; what blocks has a thread of its own.

    Args:
        catalogs: asked in this order for a reference; the last one raises for what it does not know.
    """

    def __init__(self, routes: Routes, fleet: Fleet, catalogs: Sequence[Catalog], build: Build) -> None:
        self._routes = routes
        self._fleet = fleet
        self._catalogs = catalogs
        self._build = build
        self._changing = asyncio.Lock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="inferloop-router")

    async def open(
        self, text: str, *, override: Override = NO_OVERRIDE, by_name: bool = False, parents: tuple[str, ...] = ()
    ) -> Route:
        """Load a reference that is not open yet, and before it the models that it is made of.

        Args:
            text: the reference.
            override: see `Catalog.request`; for this model, not for those that it is made of.
            by_name: whether the text comes from a request, so that it can only be a name.
            parents: the ensembles that it is opened for.

        Raises:
            InferloopError: there is no such model, or it cannot be loaded; it is not open then.
        """
        try:
            route = await self._open(text, override, by_name, parents)
        except BaseException:
            await self.settle(text, granted=False)
            raise
        await self.settle(text, granted=True)
        return route

    async def settle(self, name: str, *, granted: bool) -> bool:
        """See `Catalog.settle`, of all catalogs."""
        settled = [await self.in_thread(partial(catalog.settle, name, granted=granted)) for catalog in self._catalogs]
        return any(settled)

    async def follow(self, catalog: Catalog) -> None:
        """Bring everything of a catalog to what it wants; what fails is written down at its route."""
        wanted = catalog.wanted()
        for name in wanted or ():
            if name not in self._routes:
                reference = await self.in_thread(catalog.find, name)
                if reference is not None and name not in self._routes:
                    self._routes.add(Route(reference, catalog, required=False))
        for route in [route for route in self._routes if route.catalog is catalog]:
            if wanted is not None and not route.required and route.reference.text not in wanted:
                self.close([route], reason="it was removed")
            else:
                await self.bring(route, strict=False)

    async def bring(self, route: Route, *, strict: bool) -> None:
        """Bring one route to what its catalog wants. Without `strict`, what fails is written down and the old stays."""
        async with self._changing:
            try:
                plan = await self.in_thread(route.catalog.plan, route.reference)
                route.plan = plan
                settings = route.catalog.settings(route.reference.name)
                loaded, problems = await self._load_all(route, plan, settings, strict=strict)
            except Exception as error:  # the watcher outlives whatever a broken version does
                route.failed(error)
                self._keep_used()  # versions that were loaded before the one that failed
                if strict:
                    raise
                return
            if self._routes.get(route.reference.text) is route:
                self._swap(route, plan, loaded)
                route.settings = settings
                route.problem = ""
                for problem in problems:
                    route.failed(problem)
            self._keep_used()

    def close(self, routes: Sequence[Route], *, reason: str = "") -> None:
        """Take no more requests for these; their versions close after what they took. A reason goes to the index."""
        self._routes.remove(routes, reason=reason)
        self._keep_used()

    async def in_thread(self, function: Callable[..., _Result], *arguments: object) -> _Result:
        """Call what blocks."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)

    def shutdown(self) -> None:
        """Let the thread end. A second call does nothing."""
        self._thread.shutdown(wait=False)

    async def _open(self, text: str, override: Override, by_name: bool, parents: tuple[str, ...]) -> Route:
        catalog, reference = await self.in_thread(self._find, text, override, by_name)
        for step in catalog.settings(reference.name).ensemble:
            if step.model not in self._routes.by_ref and step.model not in (*parents, text):
                await self.open(step.model, by_name=by_name, parents=(*parents, text))
        route = self._routes.get(reference.text)
        if route is None:
            route = Route(reference, catalog)
            self._routes.add(route)
        route.required = True
        try:
            await self.bring(route, strict=True)
        except BaseException as error:
            self.close([route], reason=str(error))
            raise
        return route

    def _find(self, text: str, override: Override, by_name: bool) -> tuple[Catalog, Reference]:
        for catalog in self._catalogs:
            if by_name and not catalog.request(text, override):
                continue
            reference = catalog.find(text, by_name=by_name)
            if reference is not None:
                return catalog, reference
        raise NotFound(f"no model named {text!r}")

    async def _load_all(
        self, route: Route, plan: Plan, settings: ModelSettings, *, strict: bool
    ) -> tuple[dict[int, Loaded], list[Exception]]:
        """The planned versions, and what went wrong with those that are left out; the main one never is."""
        found: dict[int, Loaded] = {}
        problems: list[Exception] = []
        for version in plan.versions:
            try:
                found[version] = await self._load(route, plan, settings, version)
            except Exception as error:  # a canary or shadow that cannot be loaded must not hold up the main version
                if version == plan.main or strict:
                    raise
                problems.append(error)
        return found, problems

    async def _load(self, route: Route, plan: Plan, settings: ModelSettings, version: int) -> Loaded:
        catalog, reference = route.catalog, route.reference

        def load() -> Servable:
            return self._build(catalog.bundle(reference, version), settings)

        identity = (reference.place, version, plan.stamps.get(version, ""))
        return await self._fleet.get(identity, lambda: self.in_thread(load))

    def _swap(self, route: Route, plan: Plan, loaded: dict[int, Loaded]) -> None:
        before = route.live
        route.live = Live(
            main=loaded[plan.main],
            canary=loaded.get(plan.canary) if plan.canary is not None else None,
            share=plan.share,
            shadow=loaded.get(plan.shadow) if plan.shadow is not None else None,
            others=tuple(loaded[version] for version in plan.others if version in loaded),
        )
        if before is not None and before.main is not route.live.main:
            telemetry.SWAPS.labels(route.reference.name).inc()
            facts = {"model": route.reference.name, "before": before.main.predictor.version, "after": plan.main}
            log.info("model swapped", extra=facts)

    def _keep_used(self) -> None:
        self._fleet.keep({loaded for route in self._routes if route.live is not None for _, loaded in route.live.roles()})
