"""Settings that requests change, the same at every worker of a server: of traces, of the log.

change ── settings.json, one writer at a time ── the others are told, and answer when they have it ── the request is answered
                                              └─ a worker that was not reached, or starts later, reads the file
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from inferloop.serving.workers.locked import locked
from inferloop.serving.workers.peers import Peers

log = logging.getLogger(__name__)

POLL_S = 0.2
ASK = "settings"
State = dict[str, Any]


class SharedSettings:
    """The settings of all workers, by part. Event loop only.

    Args:
        folder: shared by all workers; gone when the server ends.
        peers: the other workers.
        adopt: for each part, what puts a state of it into force in this process.
    """

    def __init__(
        self, folder: Path, peers: Peers, adopt: Mapping[str, Callable[[State], None]], *, poll_s: float = POLL_S
    ) -> None:
        self._file = folder / "settings.json"
        self._lock = folder / "settings.lock"
        self._peers = peers
        self._adopt = adopt
        self._poll_s = poll_s
        self._seen: bytes = b""
        self._states: dict[str, State] = {}
        self._task: asyncio.Task[None] | None = None

    def change(self, part: str, edit: Callable[[State | None], State]) -> None:
        """Replace the state of a part by what `edit` makes of it, and put it into force here; nothing where `edit` raises.

        Args:
            part: one of those in `adopt`.
            edit: takes the state that holds now, None before the first change.
        """
        with locked(self._lock):
            states = self._read()
            states[part] = edit(states.get(part))
            new = self._file.with_suffix(".new")
            new.write_bytes(msgspec.json.encode(states))
            new.replace(self._file)
        self.look()

    def look(self) -> None:
        """Put into force what others have changed. Reads a small file."""
        try:
            content = self._file.read_bytes()
        except FileNotFoundError:
            return
        if content == self._seen:
            return
        states: dict[str, State] = msgspec.json.decode(content)
        for part, state in states.items():
            if self._states.get(part) != state:
                self._adopt[part](state)
        self._seen, self._states = content, states

    async def spread(self) -> None:
        """Return when every worker that can be reached has what was changed."""
        await self._peers.ask(ASK)

    async def start(self) -> None:
        """Take what was changed before this worker came, then follow."""
        self.look()
        self._task = asyncio.create_task(self._follow(), name="inferloop-settings")

    async def aclose(self) -> None:
        """Follow no longer. A second call does nothing."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None

    def _read(self) -> dict[str, State]:
        try:
            states: dict[str, State] = msgspec.json.decode(self._file.read_bytes())
        except FileNotFoundError:
            return {}
        return states

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(self._poll_s)
            try:
                self.look()
            except Exception:  # the follower outlives whatever one state does
                log.exception("settings not followed")
