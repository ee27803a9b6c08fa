"""How busy the machine is, as Linux says it."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

_STAT, _MEMORY = Path("/proc/stat"), Path("/proc/meminfo")
_IDLE = slice(3, 5)  # idle and waiting for a disk


class Reading(NamedTuple):
    """The machine at one time.

    Attributes:
        utilization: the share of its processors in use since the reading before, 0 to 1.
    """

    utilization: float
    memory_bytes: int
    used_bytes: int


class Machine:
    """Reads the machine's processors and memory. One thread at a time."""

    def __init__(self) -> None:
        self._busy = self._all = 0.0
        self.read()

    def read(self) -> Reading | None:
        """How it is now; None where the system does not say."""
        try:
            ticks = [float(field) for field in _STAT.read_text().partition("\n")[0].split()[1:9]]
            lines = (line.split() for line in _MEMORY.read_text().splitlines())
            memory = {line[0].rstrip(":"): int(line[1]) * 1024 for line in lines if len(line) > 1}
            total, free = memory["MemTotal"], memory["MemAvailable"]
        except (OSError, ValueError, KeyError, IndexError):
            return None
        everything, busy = sum(ticks), sum(ticks) - sum(ticks[_IDLE])
        passed, used = everything - self._all, busy - self._busy
        self._all, self._busy = everything, busy
        return Reading(min(1.0, max(0.0, used / passed)) if passed > 0 else 0.0, total, total - free)
