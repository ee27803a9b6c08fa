"""Where a Router's models come from: the registry, a repository directory.

find ── a text is a model of mine          plan ── versions that should answer       bundle, settings ── how to load one
generation ── something changed            wanted ── what should be open             known ── all there is
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from inferloop.core.bundle import Bundle
from inferloop.prediction.plan import Plan, Reference
from inferloop.prediction.settings import ModelSettings


@dataclass(frozen=True, slots=True)
class Override:
    """What a request to load a model brings along.

    Attributes:
        config: the model's configuration in place of the stored one, as JSON; empty for the stored one.
        files: content by path below the model's directory, e.g. `1/model.onnx`, in place of all stored files; needs `config`.
    """

    config: str = ""
    files: Mapping[str, bytes] = field(default_factory=dict)


NO_OVERRIDE = Override()


class Changes(Protocol):
    """Opens and closes models by request. Event loop only."""

    async def load(self, name: str, *, override: Override = NO_OVERRIDE) -> None:
        """See `Router.load`."""
        ...

    async def unload(self, name: str, *, dependents: bool = False) -> None:
        """See `Router.unload`."""
        ...


class Catalog(Protocol):
    """One place that models come from. One thread at a time calls what may block."""

    def find(self, text: str, *, by_name: bool = False) -> Reference | None:
        """The model that a reference means; None if it is none of this place. With `by_name` no path is looked at.

        Raises:
            NotFound, InvalidInput, InvalidBundle: it is one of this place, and cannot be used.
        """
        ...

    def plan(self, reference: Reference) -> Plan:
        """The versions that should answer now. Raises `NotFound` if there is none."""
        ...

    def bundle(self, reference: Reference, version: int) -> Bundle:
        """One planned version, checked.

        Raises:
            NotFound, InvalidBundle, NewerSchema, StorageError: see `Bundle.load`.
        """
        ...

    def settings(self, name: str) -> ModelSettings:
        """How a model is held and scheduled. Never blocks."""
        ...

    def generation(self) -> int:
        """A number that changes when a plan may have changed; cheap enough to poll."""
        ...

    def wanted(self) -> Sequence[str] | None:
        """The models that should be open, what they depend on first; None leaves that to whoever opens them. Never blocks."""
        ...

    def known(self) -> Mapping[str, Sequence[int]]:
        """Every model that could be opened, with its versions, as of the last `generation`. Never blocks."""
        ...

    def request(self, name: str, override: Override) -> bool:
        """Somebody wants a model to be open, as it stands now or with an override; False if it is none of this place.

        Holds until `settle` says what came of it; one request for a model at a time.

        Raises:
            Unsupported: what is open here is not decided by requests.
            InvalidInput: an override that cannot be used.
        """
        ...

    def settle(self, name: str, *, granted: bool) -> bool:
        """The end of a `request`: it came true, or all is as it was before it. Without one, nothing happens.

        Returns:
            Whether something is as it was before.
        """
        ...

    def release(self, name: str) -> None:
        """Nobody wants a model any more; an override is forgotten. Raises `Unsupported` as `request`."""
        ...
