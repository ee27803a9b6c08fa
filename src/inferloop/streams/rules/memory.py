"""What a stateful rule remembers per key: small, in event time, stored with the decision that changed it."""

from __future__ import annotations

import heapq
from collections.abc import Mapping

import msgspec

_PREFIX = "rule/"
_LATE_S = 86_400.0
"""A message may be that much older than the newest one and still finds what its key did before."""


class KeyState(msgspec.Struct, omit_defaults=True):
    """The memory of one rule for one value of what it counts by.

    Attributes:
        votes: whether the condition held, for the last messages, the newest last.
        since: event time from which on the condition held without a break; None when it does not hold.
        acted: event times at which the rule acted, oldest first.
        latched: it acted and its score did not fall below `clear_below` since.
        last: event time and value of the last message.
        until: event time from which on it says nothing more; None for what ends by a message only.
    """

    votes: list[bool] = []
    since: float | None = None
    acted: list[float] = []
    latched: bool = False
    last: tuple[float, float] | None = None
    until: float | None = None

    @property
    def empty(self) -> bool:
        """Whether forgetting it changes nothing."""
        return not self.votes and self.since is None and not self.acted and not self.latched and self.last is None


class Memory:
    """The states of all rules of one pipeline, by `RULE/PART|VALUE`. Used by one thread at a time."""

    def __init__(self, stored: Mapping[str, bytes] | None = None) -> None:
        self._states: dict[str, KeyState] = {}
        self._changed: set[str] = set()
        self._ends: list[tuple[float, str]] = []
        for name, content in (stored or {}).items():
            state = _decoded(content) if name.startswith(_PREFIX) else None
            if state is not None:
                self._keep(name, state)

    def at(self, rule: str, part: str, value: object) -> KeyState:
        """The state of one part of a rule for one value; whoever changes it calls `touch`."""
        return self._states.get(_name(rule, part, value)) or KeyState()

    def touch(self, rule: str, part: str, value: object, state: KeyState) -> None:
        """Keep a changed state."""
        name = _name(rule, part, value)
        self._changed.add(name)
        if state.empty:
            self._states.pop(name, None)
        else:
            self._keep(name, state)

    def forget(self, time: float) -> None:
        """Drop what has ended a day before an event time: a key that acted once must not stay for ever."""
        while self._ends and self._ends[0][0] <= time - _LATE_S:
            _, name = heapq.heappop(self._ends)
            state = self._states.get(name)
            if state is not None and state.until is not None and state.until <= time - _LATE_S:
                del self._states[name]
                self._changed.add(name)

    def take_changes(self) -> dict[str, bytes]:
        """The entries changed since the last call, as the journal stores them; empty bytes for one that is forgotten."""
        changes = {name: msgspec.json.encode(self._states[name]) if name in self._states else b"" for name in self._changed}
        self._changed.clear()
        return changes

    def __len__(self) -> int:
        return len(self._states)

    def _keep(self, name: str, state: KeyState) -> None:
        self._states[name] = state
        if state.until is not None:
            heapq.heappush(self._ends, (state.until, name))


def _name(rule: str, part: str, value: object) -> str:
    return f"{_PREFIX}{rule}/{part}|{value}"


def _decoded(content: bytes) -> KeyState | None:
    """A stored state; None for one of an older form."""
    try:
        return msgspec.json.decode(content, type=KeyState)
    except msgspec.DecodeError:
        return None
