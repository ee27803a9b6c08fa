"""All open references of a Router, and what can be said of them without loading anything."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from inferloop.core.errors import NotFound
from inferloop.prediction.live import Live, Loaded, ModelRole, ModelState, State
from inferloop.prediction.route import Route

_MOST_GONE = 1024


class Indexed(NamedTuple):
    """One line of the index of models.

    Attributes:
        reason: why it is not ready, or why the version that is wanted is not the one that answers; empty if all is well.
    """

    name: str
    version: int
    state: State
    reason: str = ""


class Routes:
    """References by their text. Event loop only.

    Attributes:
        by_ref: a route by its text, and by the bare name of its model; where several have one name, the first opened.
    """

    def __init__(self) -> None:
        self.by_ref: dict[str, Route] = {}
        self._by_text: dict[str, Route] = {}
        self._gone: dict[str, str] = {}

    def __iter__(self) -> Iterator[Route]:
        return iter(list(self._by_text.values()))

    def __contains__(self, text: str) -> bool:
        return text in self._by_text

    def get(self, text: str) -> Route | None:
        """The route of exactly this text."""
        return self._by_text.get(text)

    def of(self, name: str) -> list[Route]:
        """The routes to a model, by its name or the text that one was opened by."""
        return [route for route in self if name in (route.reference.name, route.reference.text)]

    def add(self, route: Route) -> None:
        """Open a door."""
        self._by_text[route.reference.text] = route
        self._gone.pop(route.reference.name, None)
        self._number()

    def remove(self, routes: Iterable[Route], *, reason: str = "") -> None:
        """Close doors; with a reason, the index goes on to show the models as unavailable."""
        for route in routes:
            if self._by_text.get(route.reference.text) is route:
                del self._by_text[route.reference.text]
                self._remember(route.reference.name, reason)
        self._number()

    def clear(self) -> None:
        """Close all doors."""
        self._by_text.clear()
        self._gone.clear()
        self._number()

    def unknown(self, ref: str) -> NotFound:
        """The error for a reference that is not open."""
        reason = f" ({self._gone[ref]})" if ref in self._gone else ""
        return NotFound(f"no model named {ref!r} is loaded{reason}", hint=f"loaded: {', '.join(self._by_text) or 'none'}")

    def version(self, route: Route, version: int) -> tuple[Live, Loaded]:
        """A loaded version of a route's model, whichever of its references holds it.

        Raises:
            NotFound: no reference does; the hint lists those that are loaded.
        """
        lives = [other.live for other in self.of(route.reference.name) if other.live is not None]
        for live in lives:
            if (loaded := live.by_version.get(version)) is not None:
                return live, loaded
        known = sorted({number for live in lives for number in live.by_version})
        raise NotFound(
            f"version {version} of model {route.reference.name!r} is not loaded", hint=f"loaded: {', '.join(map(str, known))}"
        )

    def states(self) -> list[ModelState]:
        """Every version of every reference."""
        return [state for route in self for state in route.states()]

    def index(self, known: Mapping[str, Sequence[int]], leaving: Iterable[tuple[str, int]]) -> list[Indexed]:
        """One line for each model and version, by name.

        Args:
            known: models that could be opened; those that are not are unavailable.
            leaving: versions that still answer what they had taken.
        """
        found: dict[tuple[str, int], Indexed] = {}
        for state in self.states():
            if state.role is not ModelRole.SHADOW:
                found.setdefault((state.name, state.version), Indexed(state.name, state.version, state.state, state.reason))
        for name, version in leaving:
            found.setdefault((name, version), Indexed(name, version, State.UNLOADING))
        listed = {name for name, _ in found}
        for name, versions in known.items():
            if name not in listed:
                reason = self._gone.get(name, "not loaded")
                found.update({(name, one): Indexed(name, one, State.UNAVAILABLE, reason) for one in versions})
        return [found[key] for key in sorted(found)]

    def _remember(self, name: str, reason: str) -> None:
        """Why a model is not open; of the last few only, for requests may bring ever new names."""
        if reason:
            self._gone.pop(name, None)
            self._gone[name] = reason
        while len(self._gone) > _MOST_GONE:
            del self._gone[next(iter(self._gone))]

    def _number(self) -> None:
        """Renew the doors in place: requests hold on to the mapping."""
        self.by_ref.clear()
        for route in self._by_text.values():
            self.by_ref.setdefault(route.reference.name, route)
        self.by_ref.update(self._by_text)
