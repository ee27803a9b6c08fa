"""What time it is, and what chance says: the system's, or those of a simulation."""

from __future__ import annotations

import time as system
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random


@dataclass(frozen=True, slots=True)
class Clock:
    """Two clocks and the dice that retries are spread with. May be used from any thread.

    Attributes:
        time: seconds since the epoch; may jump.
        monotonic: seconds of a clock that never goes back.
        random: for pauses; nothing secret.
    """

    time: Callable[[], float] = system.time
    monotonic: Callable[[], float] = system.monotonic
    random: Random = field(default_factory=Random)


SYSTEM = Clock()
