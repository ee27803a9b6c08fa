"""Which of the stored versions of a model are served."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from inferloop.core.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class VersionPolicy:
    """The latest ones, certain ones, or all. The highest of them answers where a request names none.

    Attributes:
        latest: how many of the highest numbers; 0 for all.
        specific: exactly these numbers, those that exist; goes before `latest`.
    """

    latest: int = 1
    specific: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.latest < 0 or min(self.specific, default=1) < 1:
            raise InvalidInput(f"version policy latest {self.latest}, specific {list(self.specific)} does not fit")

    def choose(self, stored: Iterable[int]) -> tuple[int, ...]:
        """The versions to serve, the highest first."""
        found = sorted(stored, reverse=True)
        if self.specific:
            return tuple(version for version in found if version in self.specific)
        return tuple(found[: self.latest] if self.latest else found)


LATEST = VersionPolicy()
