"""Requests by model reference to the version that shall answer, following where models come from without losing one.

predict(ref) ─ route ─┬─ main      ── answer
                      ├─ canary    ── answer, for a share of the keys
                      └─ shadow    ── ledger only
catalog (registry, repository directory) ─ follower ─ convergence ─ load, warm up, swap, drain, close
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from contextlib import ExitStack, aclosing
from functools import partial
from types import TracebackType
from typing import Self

from inferloop.core.bundle import Bundle
from inferloop.core.datatypes import Tensors
from inferloop.core.errors import InferloopError
from inferloop.core.sample import Sample
from inferloop.core.target import Target
from inferloop.core.work import Work
from inferloop.data.ledger.ledger import Ledger
from inferloop.prediction.catalog import NO_OVERRIDE, Catalog, Override
from inferloop.prediction.convergence import Convergence
from inferloop.prediction.ensemble.ensemble import Ensemble
from inferloop.prediction.fleet import Fleet
from inferloop.prediction.follower import Follower
from inferloop.prediction.inputs import Given, key_of
from inferloop.prediction.limits import Limits
from inferloop.prediction.live import Live, Loaded, ModelState
from inferloop.prediction.options import NO_OPTIONS, Options
from inferloop.prediction.prediction import Inference, Prediction, new_id
from inferloop.prediction.predictor import Predictor
from inferloop.prediction.registered import RegisteredModels, SettingsOf
from inferloop.prediction.requests import Requests
from inferloop.prediction.route import Route
from inferloop.prediction.routed import Routed
from inferloop.prediction.routes import Indexed, Routes
from inferloop.prediction.servable import Servable
from inferloop.prediction.settings import ModelSettings
from inferloop.prediction.shadows import Shadows
from inferloop.registry.registry import Registry


class Router:
    """Opens models by reference and answers with the version that is wanted. One event loop.

    A version that cannot be loaded leaves the old one in place; it is tried again when something changed, and every
    `follower.RETRY_S` seconds. A change never fails a request: what was taken is answered by the version that took it.

    Args:
        registry: where references are looked up, canary and shadow too.
        repository: a directory of models that goes before the registry; None for none.
        ledger: gets every prediction, shadow answers too; None for none.
        limits, target: for models whose settings name none.
        settings: how each model of the registry is held, by its name; None for the plain settings.
        holding: makes of a model's name and settings those that it is loaded with, or raises; None takes them as they are.
        poll_s: how often the registry is asked whether something changed.
    """

    def __init__(
        self,
        registry: Registry,
        *,
        repository: Catalog | None = None,
        ledger: Ledger | None = None,
        limits: Limits | None = None,
        target: Target | None = None,
        settings: SettingsOf | None = None,
        holding: Callable[[str, ModelSettings], ModelSettings] | None = None,
        poll_s: float = 0.2,
    ) -> None:
        self._ledger = ledger
        self._limits = limits or Limits()
        self._target = target or Target()
        self._holding = holding
        registered = RegisteredModels(registry, settings)
        self._catalogs: tuple[Catalog, ...] = (registered,) if repository is None else (repository, registered)
        self._routes = Routes()
        self._by_ref = self._routes.by_ref
        self._fleet = Fleet(drain_s=self._limits.drain_s)
        self._convergence = Convergence(self._routes, self._fleet, self._catalogs, self._build)
        self._follower = Follower(self._convergence, self._routes, self._catalogs, poll_s=poll_s)
        self._requests = Requests(self._convergence, self._routes, self._catalogs)
        self._shadows = Shadows()
        self._opened = False

    async def open(self, refs: Iterable[str]) -> None:
        """Load models and keep following them. All or none of `refs`; what the repository wants comes beside them.

        Raises:
            NotFound: no such model, version, alias or path.
            InferloopError: the Bundle or the target cannot be used, see `Predictor.load`.
        """
        self._follower.start()
        before = set(self._routes)
        try:
            for ref in dict.fromkeys(map(str, refs)):
                if ref not in self._routes:
                    await self._convergence.open(ref)
        except BaseException:
            self._convergence.close([route for route in self._routes if route not in before])
            raise
        for catalog in self._catalogs:
            if catalog.wanted() is not None:
                await self._convergence.follow(catalog)
        self._opened = True

    async def load(self, name: str, *, override: Override = NO_OVERRIDE) -> None:
        """Open a model by its name, or bring an open one to what its files say now. Atomic: the old answers until then.

        Args:
            name: its name, or the text that it was opened by.
            override: configuration and files to use in place of the stored ones; a repository takes them.

        Raises:
            NotFound: no such model.
            Unsupported: the repository decides by itself what is open.
            InvalidBundle: the engine refuses a file of `override`.
            InferloopError: it cannot be loaded; what answered before goes on.
        """
        await self._requests.load(name, override=override)
        self._opened = True

    async def unload(self, name: str, *, dependents: bool = False) -> None:
        """Take no more requests for a model; it is freed after those that it took. One that is not open is no error.

        Args:
            name: its name, or the text that it was opened by.
            dependents: whether the models that an ensemble is made of go too.

        Raises:
            Unsupported: the repository decides by itself what is open.
        """
        await self._requests.unload(name, dependents=dependents)

    async def predict(
        self,
        ref: str,
        sample: Given,
        *,
        version: int | None = None,
        key: str = "",
        id: str = "",  # noqa: A002  # the field's word
        deadline: float | None = None,
        source: str = "",
    ) -> Prediction:
        """Answer one Sample.

        Args:
            ref: a reference as it was opened, or its bare name.
            sample: see `Predictor.apredict`, as for all else.
            version: one of the loaded versions, past alias and canary; None for the one that is wanted.
            key: decides about the canary; the Sample's own if left out.
            id: the prediction id to use; a new one if left out.
            deadline: `time.monotonic()` seconds.
            source: who asks, in the ledger.

        Raises:
            NotFound: the model or the version is not open; the hint lists those that are.
            Unavailable: the model is not loaded.
            InvalidInput, Overloaded, DeadlineExceeded, EngineError: see `Predictor.apredict`.
        """
        prediction_id = id or new_id()
        live, loaded = self._choose(ref, version, key or key_of(sample) or prediction_id)
        with loaded as predictor:
            answer = await predictor.apredict(sample, key=key, id=prediction_id, deadline=deadline, source=source)
        if live.shadow is not None and version is None:
            self._shadows.ask(
                live.shadow, lambda shadow, name: shadow.apredict(sample, key=key, id=name, source="shadow"), prediction_id
            )
        return answer

    async def predict_many(self, ref: str, samples: Sequence[Sample], *, source: str = "") -> list[Prediction | InferloopError]:
        """Answer several Samples in as few runs as can be: an answer or an error for each, in their order.

        Raises:
            NotFound: the model is not open; the hint lists those that are.
            Unavailable: the model is not loaded.
        """
        route, live = self._live(ref)
        ids = [new_id() for _ in samples]
        groups: dict[Loaded, list[int]] = {}
        for place, sample in enumerate(samples):
            groups.setdefault(live.answering(route.reference.name, sample.key or ids[place]), []).append(place)
        found: dict[int, Prediction | InferloopError] = {}
        with ExitStack() as stack:
            held = [(stack.enter_context(loaded), places) for loaded, places in groups.items()]
            for servable, places in held:
                asked = [samples[place] for place in places]
                answers = await servable.apredict_many(asked, ids=[ids[place] for place in places], source=source)
                found.update(zip(places, answers, strict=True))
        if live.shadow is not None:
            for sample, id_ in zip(samples, ids, strict=True):
                self._shadows.ask(live.shadow, partial(_ask_shadow, sample), id_)
        return [found[place] for place in range(len(samples))]

    def ask(
        self,
        ref: str,
        tensors: Tensors,
        *,
        version: int | None = None,
        key: str = "",
        id: str = "",  # noqa: A002  # the field's word
        deadline: float | None = None,
        source: str = "",
        options: Options = NO_OPTIONS,
    ) -> Work[Inference]:
        """Run the tensors of one request, to be started or awaited at once.

        `options` says its priority and sequence, all else is as `predict`; what the model says against the request comes
        with the answer.
        """
        prediction_id = id or new_id()
        live, loaded = self._choose(ref, version, key or options.sequence_key or prediction_id)
        work = loaded.predictor.ask(tensors, key=key, id=prediction_id, deadline=deadline, source=source, options=options)
        shadow = live.shadow if version is None else None
        if shadow is None:
            return Routed(work, loaded, None)

        def question(servable: Servable, name: str) -> Work[Inference]:
            return servable.ask(tensors, key=key, id=name, source="shadow", options=options)

        return Routed(work, loaded, partial(self._shadows.ask, shadow, question, prediction_id))

    async def infer(
        self,
        ref: str,
        tensors: Tensors,
        *,
        version: int | None = None,
        key: str = "",
        id: str = "",  # noqa: A002  # the field's word
        deadline: float | None = None,
        source: str = "",
        options: Options = NO_OPTIONS,
    ) -> Inference:
        """See `ask`, as a coroutine."""
        return await self.ask(ref, tensors, version=version, key=key, id=id, deadline=deadline, source=source, options=options)

    async def stream(
        self,
        ref: str,
        tensors: Tensors,
        *,
        version: int | None = None,
        key: str = "",
        id: str = "",  # noqa: A002  # the field's word
        deadline: float | None = None,
        source: str = "",
        options: Options = NO_OPTIONS,
    ) -> AsyncGenerator[Inference, None]:
        """Every answer to the tensors of one request as it is made: exactly one unless the model is decoupled.

        No shadow hears it. Close the iterator (`aclosing`) to leave early; until its end the version that answers is not closed.
        """
        prediction_id = id or new_id()
        _, loaded = self._choose(ref, version, key or options.sequence_key or prediction_id)
        with loaded as predictor:
            answers = predictor.astream(tensors, key=key, id=prediction_id, deadline=deadline, source=source, options=options)
            async with aclosing(answers):
                async for answer in answers:
                    yield answer

    def bundle(self, ref: str, *, version: int | None = None) -> Bundle:
        """The Bundle that answers for a reference; with `version`, that one if it is loaded. Errors as `predict`."""
        return self.predictor(ref, version=version).bundle

    def predictor(self, ref: str, *, version: int | None = None) -> Servable:
        """What answers for a reference, to be looked at, not asked: `predict` and `infer` keep it from closing."""
        if version is not None:
            return self._choose(ref, version, "")[1].predictor
        return self._live(ref)[1].main.predictor

    def settings(self, ref: str) -> ModelSettings:
        """How an open model is held and scheduled. Raises `NotFound`."""
        return self._live(ref)[0].settings

    def models(self) -> list[ModelState]:
        """Every version of every open reference, and whether it answers."""
        return self._routes.states()

    def index(self) -> list[Indexed]:
        """Every model that is open, is closing or could be opened, with its versions and their states, by name."""
        known = {name: versions for catalog in reversed(self._catalogs) for name, versions in catalog.known().items()}
        return self._routes.index(known, self._fleet.leaving())

    @property
    def ready(self) -> bool:
        """Whether every model that was asked for answers, and no other is on its way; false while nothing was opened yet."""
        return self._opened and all(route.settled for route in self._routes)

    async def settled(self) -> None:
        """Wait until every version that is no longer used is closed and its memory given back."""
        await self._fleet.settled()

    async def aclose(self) -> None:
        """Stop following, answer what was accepted, close all versions. A second call does nothing."""
        await self._follower.aclose()
        self._routes.clear()
        await self._shadows.aclose()
        await self._fleet.aclose()
        self._convergence.shutdown()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.aclose()

    def _live(self, ref: str) -> tuple[Route, Live]:
        route = self._by_ref.get(ref)
        if route is None:
            raise self._routes.unknown(ref)
        if route.live is None:
            raise route.unavailable()
        return route, route.live

    def _choose(self, ref: str, version: int | None, key: str) -> tuple[Live, Loaded]:
        route = self._by_ref.get(ref)
        if route is None or (live := route.live) is None:
            raise self._routes.unknown(ref) if route is None else route.unavailable()
        if version is None:
            return live, live.answering(route.reference.name, key)
        loaded = live.by_version.get(version)
        return (live, loaded) if loaded is not None else self._routes.version(route, version)

    def _build(self, bundle: Bundle, settings: ModelSettings) -> Servable:
        if self._holding is not None:
            settings = self._holding(bundle.name, settings)
        if settings.ensemble:
            return Ensemble.load(bundle, settings, self, ledger=self._ledger)
        return Predictor.load(bundle, target=self._target, limits=self._limits, ledger=self._ledger, settings=settings)


def _ask_shadow(sample: Sample, shadow: Servable, name: str) -> Awaitable[Prediction]:
    return shadow.apredict(sample, id=name, source="shadow")
