"""Which models the server knows, and loading and unloading them while it runs."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from inferloop.core.errors import InvalidInput
from inferloop.prediction.catalog import Changes, Override
from inferloop.prediction.live import State
from inferloop.prediction.router import Router

_CONFIG = "config"
_FILE = "file:"


class Repository:
    """The model repository extension of the protocol. Event loop only."""

    def __init__(self, router: Router, changes: Changes | None = None) -> None:
        """Set up; `changes` loads and unloads in place of the router, where other workers must do the same."""
        self._router = router
        self._changes: Changes = changes or router

    def index(self, ready: bool) -> list[dict[str, str]]:
        """Every model and version, by name: `name`, `version`, `state`, and `reason` where there is one.

        Args:
            ready: only those that answer.
        """
        lines = [line for line in self._router.index() if line.state is State.READY or not ready]
        entries = [{"name": line.name, "version": str(line.version), "state": str(line.state)} for line in lines]
        return [{**entry, "reason": line.reason} if line.reason else entry for entry, line in zip(entries, lines, strict=True)]

    async def load(self, name: str, parameters: Mapping[str, Any]) -> None:
        """Open a model, or bring an open one to what its files say now; returns when it answers.

        Args:
            name: as it is in the index.
            parameters: `config`: its configuration as JSON text; `file:PATH`: the content of a file below the model's
                directory, as bytes or as base64 text. What else there is, is accepted and means nothing.

        Raises:
            NotFound: no such model.
            InvalidInput: a parameter of another form, or the model cannot be used as it is.
            Unsupported: the server decides by itself what is open.
        """
        await self._changes.load(name, override=override_of(parameters))

    async def unload(self, name: str, unload_dependents: bool) -> None:
        """Close a model; returns at once, it is freed after the requests that it took. An unknown one is no error.

        Raises:
            Unsupported: as `load`.
        """
        await self._changes.unload(name, dependents=unload_dependents)


def override_of(parameters: Mapping[str, Any]) -> Override:
    """What the parameters of a load request bring along.

    Raises:
        InvalidInput: `config` is no text, a file has no base64, or there are files without `config`.
    """
    config = parameters.get(_CONFIG, "")
    if not isinstance(config, str):
        raise InvalidInput(f"parameter {_CONFIG!r} is {type(config).__name__}, it must be JSON in a string")
    files = {key.removeprefix(_FILE): _content(key, value) for key, value in parameters.items() if key.startswith(_FILE)}
    if files and not config:
        raise InvalidInput("files without the parameter 'config'", hint="send the configuration that goes with them")
    return Override(config, files)


def _content(key: str, value: object) -> bytes:
    if isinstance(value, bytes):
        return value
    try:
        if not isinstance(value, str):
            raise ValueError
        return base64.b64decode(value, validate=True)
    except (ValueError, binascii.Error):
        raise InvalidInput(f"parameter {key!r} is no base64") from None
