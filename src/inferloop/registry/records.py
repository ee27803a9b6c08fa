"""What the registry says about models and versions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple


class Canary(NamedTuple):
    """A version that gets a share of the keys, above 0 and below 1."""

    version: int
    share: float


@dataclass(frozen=True, slots=True)
class Desired:
    """What every server of a model converges to."""

    champion: int | None
    canary: Canary | None = None
    shadow: int | None = None


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """One registered model.

    Attributes:
        created: when its first version was registered, seconds since the epoch.
        latest: the highest version.
        aliases: version by alias.
    """

    name: str
    owner: str
    created: float
    versions: int
    latest: int
    aliases: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class VersionInfo:
    """One registered version.

    Attributes:
        digest: the content digest of the Bundle.
        created: when it was registered, seconds since the epoch.
        size_bytes: all files of the Bundle.
        aliases: the aliases that point at it.
    """

    name: str
    version: int
    digest: str
    created: float
    owner: str
    size_bytes: int
    aliases: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Move:
    """One move of an alias.

    Attributes:
        kind: `register`, `promote`, `rollback`, `alias` or `remove`.
        before: the version it left; None if the alias is new.
        after: the version it points at now; None if the alias was taken away.
        report_digest: the Report that justified it; may be empty.
    """

    model: str
    alias: str
    before: int | None
    after: int | None
    kind: str
    by: str
    time: float
    report_digest: str = ""


class Rollback(NamedTuple):
    """The champion's way back."""

    before: int
    after: int


@dataclass(frozen=True, slots=True)
class Check:
    """Whether one version is as it was registered; `problem` is empty then."""

    version: int
    problem: str = ""
