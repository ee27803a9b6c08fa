"""How much of a cheap nuisance a client may cause: a bucket that fills with time and with honest work."""

from __future__ import annotations


class Allowance:
    """Tokens up to `burst`, `per_s` of them a second.

    Attributes:
        left: tokens now.
    """

    __slots__ = ("_burst", "_per_s", "left")

    def __init__(self, burst: float, per_s: float) -> None:
        self._burst = burst
        self._per_s = per_s
        self.left = burst

    def spend(self, tokens: float = 1.0) -> bool:
        """Take some; False if there are not as many."""
        self.left -= tokens
        return self.left >= 0

    def earn(self, tokens: float) -> None:
        """Put some back."""
        self.left = min(self._burst, self.left + tokens)

    def elapse(self, seconds: float) -> None:
        """Time has passed."""
        self.earn(self._per_s * seconds)
