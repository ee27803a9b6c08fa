"""How a model is named: `name@alias`, `name:version`, or `name` alone."""

from __future__ import annotations

import re
from dataclasses import dataclass

from inferloop.core.errors import InvalidInput

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_ALIAS = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,99}")
_REF = re.compile(r"(?P<name>[^@:/\\]+)(@(?P<alias>[^@:/\\]+)|:(?P<version>\d{1,9}))?")

CHAMPION = "champion"
RESERVED = frozenset({"stats"})
"""Names that no model can have: `/v2/models/stats` is the statistics of all."""


@dataclass(frozen=True, slots=True)
class ModelRef:
    """A model of the registry by name and, at most one of both, alias or version."""

    name: str
    alias: str | None = None
    version: int | None = None

    def __str__(self) -> str:
        if self.alias is not None:
            return f"{self.name}@{self.alias}"
        return self.name if self.version is None else f"{self.name}:{self.version}"

    @classmethod
    def parse(cls, text: str) -> ModelRef:
        """Read a reference.

        Raises:
            InvalidInput: another form.
        """
        match = _REF.fullmatch(text.strip())
        if match is None:
            raise InvalidInput(
                f"model {text!r} is not NAME, NAME@ALIAS or NAME:VERSION", hint="e.g. refunds@champion or refunds:3"
            )
        version = int(match["version"]) if match["version"] else None
        check_name(match["name"])
        if match["alias"] is not None:
            check_alias(match["alias"])
        return cls(match["name"], match["alias"], version)


def check_name(name: str) -> None:
    """Raise `InvalidInput` unless `name` can be a model's name, which is also a directory's."""
    if _NAME.fullmatch(name) is None:
        raise InvalidInput(
            f"model name {name!r} is not allowed", hint="letters, digits, '.', '_' and '-', up to 100, a letter or digit first"
        )
    check_free(name)


def check_free(name: str) -> None:
    """Raise `InvalidInput` for a name that the protocol keeps for itself."""
    if name in RESERVED:
        raise InvalidInput(f"model name {name!r} is not allowed", hint="the protocol has a path of that name")


def check_alias(alias: str) -> None:
    """Raise `InvalidInput` unless `alias` can be an alias."""
    if _ALIAS.fullmatch(alias) is None:
        raise InvalidInput(f"alias {alias!r} is not allowed", hint="letters, digits, '.', '_' and '-', up to 100, a letter first")
