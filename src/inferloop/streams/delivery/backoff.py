"""When to try again: exponential with full jitter, and a breaker that remembers across deliveries that the other side is down."""

from __future__ import annotations

from inferloop.core.clock import SYSTEM, Clock

FIRST_S = 0.05
LONGEST_S = 30.0
OPENS_AFTER = 5
"""Failures in a row after which a sink counts as down."""


class Backoff:
    """The failures in a row of one sink.

    Every delivery of the sink shares it: while the other side is down, the next delivery does not start to hammer anew.
    """

    def __init__(self, first_s: float = FIRST_S, longest_s: float = LONGEST_S, *, clock: Clock = SYSTEM) -> None:
        self._clock = clock
        self._first_s = first_s
        self._longest_s = longest_s
        self._until = 0.0
        self.failures = 0

    @property
    def open(self) -> bool:
        """Whether the breaker is open: the other side is down and the time for the next probe has not come."""
        return self.failures >= OPENS_AFTER and self._clock.monotonic() < self._until

    def failed(self) -> float:
        """Count a failure; returns the seconds until the next try: uniform in 0 ... 50 ms * 2^failures, 30 s at most."""
        ceiling_s = min(self._longest_s, self._first_s * 2 ** min(self.failures, 32))
        self.failures += 1
        delay_s = self._clock.random.uniform(0.0, ceiling_s)
        self._until = self._clock.monotonic() + delay_s
        return delay_s

    def succeeded(self) -> None:
        """Close the breaker."""
        self.failures = 0
