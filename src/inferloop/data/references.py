"""`${NAME}` and `${secret:NAME}` in configuration, and keeping secrets out of messages."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from inferloop.core.errors import InvalidConfig

_REFERENCE = re.compile(r"\$\$\{|\$\{(?P<secret>secret:)?(?P<name>[A-Za-z_][A-Za-z0-9_.-]*)(?::-(?P<default>[^}]*))?\}")
_SECRETS_DIRECTORY = "INFERLOOP_SECRETS"
_MAX_DEPTH = 64
_resolved_secrets: set[str] = set()
"""What `expand` read as secrets, so that no message about a wrong value shows it."""


def expand(value: Any, *, where: str = "") -> Any:
    """Replace `${NAME}` by the environment variable and `${secret:NAME}` by the secret, in every string of `value`.

    `${NAME:-text}` has a default; `$${` stands for `${`. A secret is the file NAME in the directory that the environment
    variable INFERLOOP_SECRETS names (`/run/secrets` without it), else the environment variable NAME.

    Raises:
        InvalidConfig: all references that cannot be resolved, by path; a secret's content is never shown.
    """
    problems: list[str] = []
    expanded = _expand(value, (), problems)
    if problems:
        prefix = f"{where}: " if where else ""
        raise InvalidConfig([prefix + problem for problem in problems], hint="set the variable, or give a default: ${NAME:-text}")
    return expanded


def redacted(text: str) -> str:
    """The text with every secret that `expand` has read replaced by `***`."""
    for secret in _resolved_secrets:
        text = text.replace(secret, "***")
    return text


def _expand(value: Any, path: tuple[str, ...], problems: list[str]) -> Any:
    if len(path) > _MAX_DEPTH:
        raise InvalidConfig([f"{'.'.join(path[:4])}...: nested deeper than {_MAX_DEPTH} levels"])
    if isinstance(value, str):
        return _expand_text(value, path, problems)
    if isinstance(value, Mapping):
        return {key: _expand(item, (*path, str(key)), problems) for key, item in value.items()}
    if isinstance(value, list):
        return [_expand(item, (*path, str(index)), problems) for index, item in enumerate(value)]
    return value


def _expand_text(text: str, path: tuple[str, ...], problems: list[str]) -> str:
    def resolve(match: re.Match[str]) -> str:
        if match[0] == "$${":
            return "${"
        found = _secret(match["name"]) if match["secret"] else os.environ.get(match["name"])
        if found is None:
            found = match["default"]
        if found is None:
            kind = "secret" if match["secret"] else "environment variable"
            problems.append(f"{'.'.join(path)}: {kind} {match['name']} is not set")
            return ""
        return found

    return _REFERENCE.sub(resolve, text) if "${" in text else text


def _secret(name: str) -> str | None:
    path = Path(os.environ.get(_SECRETS_DIRECTORY) or "/run/secrets") / name
    try:
        value: str | None = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        value = os.environ.get(name)
    if value:
        _resolved_secrets.add(value)
    return value
