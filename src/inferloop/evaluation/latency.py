"""How long single answers take: wall time of calls one after another, after a warm-up."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

import numpy as np

from inferloop.core.errors import InvalidInput

_T = TypeVar("_T")


class Latency(NamedTuple):
    """Milliseconds of one call, from inputs at hand to outputs at hand."""

    p50_ms: float
    p99_ms: float
    mean_ms: float
    calls: int


def measure(call: Callable[[_T], object], inputs: Sequence[_T], *, calls: int = 200, warm_up: int = 10) -> Latency:
    """Call one input after another, round and round, and time each.

    Args:
        call: what is timed.
        inputs: at least one.
        calls: how many are timed.
        warm_up: how many go before and are not.
    """
    if not inputs or calls < 1:
        raise InvalidInput(f"{calls} calls on {len(inputs)} inputs cannot be timed")
    for index in range(warm_up):
        call(inputs[index % len(inputs)])
    took = np.empty(calls)
    for index in range(calls):
        began = time.perf_counter()
        call(inputs[index % len(inputs)])
        took[index] = time.perf_counter() - began
    p50, p99 = np.quantile(took, (0.5, 0.99)) * 1000
    return Latency(float(p50), float(p99), float(took.mean() * 1000), calls)
