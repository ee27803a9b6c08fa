"""What a reference means now: the versions that should answer, and which of them by default."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from inferloop.core.bundle import Bundle
from inferloop.core.errors import InvalidInput, NotFound
from inferloop.registry.ref import CHAMPION, ModelRef, check_free
from inferloop.registry.registry import Registry


@dataclass(frozen=True, slots=True)
class Reference:
    """A model as somebody opened it.

    Attributes:
        name: the model's name.
        model: its name, alias and version in the registry; None outside of it.
        place: what tells its versions from those of another model of the same name; the name itself for one in the registry.
    """

    text: str
    name: str
    model: ModelRef | None = None
    place: str = ""

    @property
    def is_planned(self) -> bool:
        """Whether canary and shadow versions apply: to the champion's traffic only."""
        return self.model is not None and self.model.version is None and self.model.alias in (None, CHAMPION)

    @classmethod
    def find(cls, registry: Registry, text: str, *, paths: bool = True) -> Reference:
        """Look a reference up, in the registry first unless it looks like a path. Blocks.

        Args:
            registry: of the models.
            text: the reference.
            paths: whether it may be a path.

        Raises:
            NotFound: neither a model nor a path.
            InvalidBundle: a path without a Bundle.
            InvalidInput: no model can have that name.
        """
        if not ("/" in text or "\\" in text or text.startswith((".", "~"))):
            try:
                name, _ = registry.version_of(text)
                return cls(text, name, ModelRef.parse(text), place=name)
            except (NotFound, InvalidInput):
                if not paths or not Path(text).is_dir():
                    raise
        if not paths:
            raise NotFound(f"no model named {text!r}")
        name = registry.resolve(text).name
        check_free(name)
        return cls(text, name, place=text)


@dataclass(frozen=True, slots=True)
class Plan:
    """The versions that a reference should route to.

    Attributes:
        share: the part of the keys that `canary` answers, 0 to 1.
        others: versions that answer only where a request names them.
        stamps: by version, what changes when the files or settings behind that number change; left out for immutable ones.
    """

    main: int
    canary: int | None = None
    share: float = 0.0
    shadow: int | None = None
    others: tuple[int, ...] = ()
    stamps: Mapping[int, str] = field(default_factory=dict)

    @property
    def versions(self) -> tuple[int, ...]:
        """All of them, the main one first."""
        beside = (version for version in (self.canary, self.shadow) if version is not None)
        return tuple(dict.fromkeys((self.main, *beside, *self.others)))


def plan(registry: Registry, reference: Reference) -> Plan:
    """Ask the registry. Blocks for a moment.

    Raises:
        NotFound: no such model, version or alias.
    """
    if reference.model is None:
        return Plan(main=0)
    if not reference.is_planned:
        return Plan(registry.version_of(reference.text)[1])
    desired = registry.desired(reference.name)
    main = registry.version_of(reference.text)[1] if desired.champion is None else desired.champion
    canary = desired.canary if desired.canary is not None and desired.canary.version != main else None
    return Plan(
        main=main,
        canary=canary.version if canary is not None else None,
        share=canary.share if canary is not None else 0.0,
        shadow=desired.shadow if desired.shadow != main else None,
    )


def find_bundle(registry: Registry, reference: Reference, version: int) -> Bundle:
    """The Bundle of one planned version, its digests checked. Blocks."""
    return registry.resolve(reference.text if reference.model is None else f"{reference.name}:{version}")
