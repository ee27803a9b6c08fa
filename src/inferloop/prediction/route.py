"""One open reference: what it routes to, and what went wrong last."""

from __future__ import annotations

import logging

from inferloop.core.errors import Unavailable
from inferloop.prediction.catalog import Catalog
from inferloop.prediction.live import Live, Loaded, ModelRole, ModelState, State
from inferloop.prediction.plan import Plan, Reference
from inferloop.prediction.settings import ModelSettings

log = logging.getLogger(__name__)


class Route:
    """A reference and the versions behind it. Event loop only.

    Attributes:
        catalog: where its versions come from.
        required: whether somebody named the model; one that a catalog wants by itself may be broken in a ready server.
        live: what answers; None before the first load.
        plan: what should answer; None before the first look.
        settings: with which `live` is held; before the first load, what the catalog says.
        problem: why the last wanted version is not live; empty if all is as wanted.
    """

    def __init__(self, reference: Reference, catalog: Catalog, *, required: bool = True) -> None:
        self.reference = reference
        self.catalog = catalog
        self.required = required
        self.live: Live | None = None
        self.plan: Plan | None = None
        self.settings: ModelSettings = catalog.settings(reference.name)
        self.problem = ""
        self._logged = ""

    def failed(self, error: Exception) -> None:
        """Write down that a version could not be put live; said in the log once."""
        problem = str(error) or type(error).__name__
        if problem != self._logged:
            log.error("model not loaded", extra={"ref": self.reference.text, "error": problem, "serving": self.live is not None})
        self.problem = self._logged = problem

    def unavailable(self) -> Unavailable:
        """The error for a request that comes before the model is there."""
        return Unavailable(f"model {self.reference.text!r} is not loaded", hint=self.problem or "it is loading, try again")

    @property
    def settled(self) -> bool:
        """Whether it answers, or is broken and nobody asked for it."""
        answers = self.live is not None and not self.live.main.predictor.problem
        return answers or (not self.required and (self.live is not None or bool(self.problem)))

    def states(self) -> list[ModelState]:
        """The state of each version."""
        if self.live is not None:
            return [self._state(role, loaded) for role, loaded in self.live.roles()]
        state = State.UNAVAILABLE if self.problem else State.LOADING
        version = self.plan.main if self.plan is not None else 0
        return [ModelState(self.reference.text, self.reference.name, version, ModelRole.MAIN, state, self.problem)]

    def _state(self, role: ModelRole, loaded: Loaded) -> ModelState:
        broken = loaded.predictor.problem
        reason = broken or (self.problem if role is ModelRole.MAIN else "")
        state = State.UNAVAILABLE if broken else State.READY
        return ModelState(self.reference.text, self.reference.name, loaded.predictor.version, role, state, reason)
