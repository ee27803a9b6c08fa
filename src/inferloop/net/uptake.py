"""Whether a client takes what it is sent: patience for one that pauses, and none for one that only pretends to read."""

from __future__ import annotations


class Uptake:
    """Watches bytes that wait to leave; whoever takes at least `rate` of them a second is never late.

    Attributes:
        since: when they began to wait, in seconds of the caller's clock.
    """

    __slots__ = ("_taken", "_unsent", "since")

    def __init__(self, since: float, unsent: int) -> None:
        self.since = since
        self._unsent = unsent
        self._taken = 0

    def is_late(self, now: float, unsent: int, *, patience_s: float, rate: float) -> bool:
        """Look again; more bytes may have joined those that wait.

        Args:
            now: seconds of the same clock.
            unsent: bytes that wait now.
            patience_s: how long a client may take nothing at all, in sum.
            rate: bytes a second that it must take beyond that.
        """
        self._taken += max(0, self._unsent - unsent)
        self._unsent = unsent
        return now - self.since > patience_s + self._taken / rate
