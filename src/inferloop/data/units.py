"""Durations, sizes and rates as people write them in configuration: `5ms`, `2GB`, `20/1h`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from inferloop.core.errors import InvalidInput

_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_BYTES = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}
_NUMBER = r"(\d{1,15}(?:\.\d{1,15})?)"
_DURATION = re.compile(_NUMBER + r"\s*(us|ms|s|m|h|d|w)\s*")
_SIZE = re.compile(_NUMBER + r"\s*([KMGT]?I?B)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class RateLimit:
    """So many within so many seconds."""

    count: int
    per_s: float


def duration_s(text: object) -> float:
    """Seconds of `5ms`, `2s`, `1h30m`, `7d`; the unit is never left out, except for 0.

    Raises:
        InvalidInput: another form.
    """
    if text in (0, "0") and not isinstance(text, bool):
        return 0.0
    parts = _DURATION.findall(text) if isinstance(text, str) and re.fullmatch(f"(?:{_DURATION.pattern})+", text.strip()) else []
    if not parts:
        raise InvalidInput(f"must be a duration with its unit (us, ms, s, m, h, d, w), e.g. 5ms or 1h30m, not {text!r}")
    return sum(float(number) * _SECONDS[unit] for number, unit in parts)


def size_bytes(text: object) -> int:
    """Bytes of `512B`, `2GB` (10^9) or `1GiB` (2^30); the unit is never left out, except for 0.

    Raises:
        InvalidInput: another form.
    """
    if text in (0, "0") and not isinstance(text, bool):
        return 0
    match = _SIZE.fullmatch(text.strip()) if isinstance(text, str) else None
    if match is None:
        raise InvalidInput(f"must be a size with its unit (B, KB, MB, GB, KiB, MiB, GiB), e.g. 2GB, not {text!r}")
    return int(float(match[1]) * _BYTES[match[2].upper()])


def rate(text: object) -> RateLimit:
    """`20/1h` (20 within an hour) or `5/s` (5 a second).

    Raises:
        InvalidInput: another form.
    """
    if isinstance(text, RateLimit):
        return text
    count, slash, period = text.partition("/") if isinstance(text, str) else ("", "", "")
    period = period.strip()
    if not slash or not count.strip().isdecimal() or not count.isascii():
        raise InvalidInput(f"must be a count per time, e.g. 20/1h or 5/s, not {text!r}")
    per_s = duration_s(period if period[:1].isdigit() else f"1{period}")
    if int(count) < 1 or per_s <= 0:
        raise InvalidInput(f"must be at least 1 within a time above 0, not {text!r}")
    return RateLimit(int(count), per_s)
