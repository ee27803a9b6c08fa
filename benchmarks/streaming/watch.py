"""A stop watch for a run: from the first message to the last, and from each message's own time to its acknowledgment."""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Sequence

import msgspec
import numpy as np

_PACED = 12_000
"""A run of fewer messages is a paced one: the delay of each is of interest."""


class Watch:
    """Prints one JSON object when the last message is acknowledged."""

    def __init__(self, count: int) -> None:
        self._left = count
        self._started = 0.0
        self._cpu = 0.0
        self._late_s: list[float] = []

    def begin(self) -> None:
        """A message came."""
        if not self._started:
            self._started, self._cpu = time.perf_counter(), time.process_time()

    def done(self, payloads: Sequence[bytes]) -> bool:
        """Some were acknowledged; whether all are."""
        now = time.time()
        if self._left < _PACED:  # at full speed nobody asks, and it would cost
            self._late_s += [now - msgspec.json.decode(payload)["at"] for payload in payloads]
        self._left -= len(payloads)
        if self._left > 0:
            return False
        taken = {"seconds": time.perf_counter() - self._started, "cpu_s": time.process_time() - self._cpu}
        late = dict(zip(("p50_ms", "p99_ms"), np.percentile(self._late_s or [0.0], (50, 99)) * 1e3, strict=True))
        print(json.dumps({**taken, **late, "rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))
        return True
