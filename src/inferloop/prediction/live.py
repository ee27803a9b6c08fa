"""What a Router has loaded: versions with the requests they are answering, and the set that one reference routes to."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import TracebackType

from inferloop.prediction.servable import Servable
from inferloop.prediction.split import takes_canary


class State(StrEnum):
    """Whether a model answers."""

    READY = "READY"
    LOADING = "LOADING"
    UNLOADING = "UNLOADING"
    UNAVAILABLE = "UNAVAILABLE"


class ModelRole(StrEnum):
    """What a version is for, within one reference; `VERSION` answers only where a request names its number."""

    MAIN = "main"
    CANARY = "canary"
    SHADOW = "shadow"
    VERSION = "version"


@dataclass(frozen=True, slots=True)
class ModelState:
    """One version of one open reference.

    Attributes:
        ref: the reference it was opened by.
        version: 0 for a Bundle outside of a registry.
        reason: why it is not ready, or why the version that the registry wants is not the one that answers; empty if all is well.
    """

    ref: str
    name: str
    version: int
    role: ModelRole
    state: State
    reason: str = ""


class Loaded:
    """A Predictor and the number of requests it is answering. Event loop only."""

    def __init__(self, predictor: Servable) -> None:
        self.predictor = predictor
        self._users = 0
        self._unused = asyncio.Event()
        self._unused.set()

    def take(self) -> Servable:
        """Use the predictor; it is not closed before `release`."""
        if not self._users:
            self._unused.clear()
        self._users += 1
        return self.predictor

    def release(self) -> None:
        """The end of one `take`."""
        self._users -= 1
        if not self._users:
            self._unused.set()

    def __enter__(self) -> Servable:
        """`take`."""
        return self.take()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.release()

    async def retire(self, *, grace_s: float) -> None:
        """Close it after the last request, or after `grace_s`."""
        try:
            async with asyncio.timeout(grace_s):
                await self._unused.wait()
        except TimeoutError:
            pass
        await self.predictor.aclose()


@dataclass(frozen=True, slots=True)
class Live:
    """The versions that one reference routes to. Replaced as a whole, so that a request sees either the old or the new.

    Attributes:
        share: the part of the keys that `canary` answers, 0 to 1.
        others: versions that answer only where a request names them.
        by_version: all of them, by number.
    """

    main: Loaded
    canary: Loaded | None = None
    share: float = 0.0
    shadow: Loaded | None = None
    others: tuple[Loaded, ...] = ()
    by_version: Mapping[int, Loaded] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "by_version", {loaded.predictor.version: loaded for _, loaded in reversed(self.roles())})

    def roles(self) -> tuple[tuple[ModelRole, Loaded], ...]:
        """Every version with what it is for, the main one first."""
        parts = ((ModelRole.MAIN, self.main), (ModelRole.CANARY, self.canary), (ModelRole.SHADOW, self.shadow))
        found = tuple((role, loaded) for role, loaded in parts if loaded is not None)
        return (*found, *((ModelRole.VERSION, loaded) for loaded in self.others))

    def answering(self, model: str, key: str) -> Loaded:
        """The version that answers for a key."""
        if self.canary is not None and takes_canary(model, key, self.share):
            return self.canary
        return self.main
