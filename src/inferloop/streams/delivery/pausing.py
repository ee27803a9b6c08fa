"""Pauses that the other side asks for: `Retry-After`, in seconds or as a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

LONGEST_S = 300.0
"""Nobody keeps us waiting longer than this."""


class Pause:
    """When the other side wants to hear from us again."""

    def __init__(self) -> None:
        self._until = 0.0

    def asked(self, headers: Mapping[str, str]) -> None:
        """Take note of what the headers of a refusal say."""
        self._until = time.monotonic() + min(retry_after_s(headers.get("Retry-After", ""), time.time()), LONGEST_S)

    async def over(self) -> None:
        """Wait until then."""
        left_s = self._until - time.monotonic()
        if left_s > 0:
            await asyncio.sleep(left_s)


def retry_after_s(value: str, now: float) -> float:
    """The seconds that a `Retry-After` stands for; 0 for what is neither seconds nor a time."""
    value = value.strip()
    if value.isascii() and value.isdecimal():
        return float(value[:12])
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - now)
    except (ValueError, TypeError, OverflowError):
        return 0.0
