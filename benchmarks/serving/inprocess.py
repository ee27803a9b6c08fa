"""What one answer costs in Python, without a server, above the bare engine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import inferloop as il
from harness import Row, judged
from serving import models

_CALLS = 4000
_ROUNDS = 15


def rows(folder: Path, command: str) -> list[Row]:
    """CPU time of `il.load(...).infer` less that of `session.run`, one row of the tiny model, no ledger."""
    bundle = models.tiny(folder / "tiny-model-python")
    x = models.row(bundle)
    bare = models.bare(bundle)
    with il.load(bundle.path) as predictor:
        gaps = []
        for _ in range(_ROUNDS):
            alone = _cpu_us(lambda: bare(x))
            gaps.append(_cpu_us(lambda: predictor.infer({"x": x})) - alone)
    bare_us = _cpu_us(lambda: bare(x))
    peer = f"session.run alone {bare_us:.1f}"
    return [judged("python_overhead_us", round(statistics.median(gaps), 1), "us", goal="<= 15", command=command, peer=peer)]


def _cpu_us(call: Callable[[], object]) -> float:
    call()
    started = time.process_time()
    for _ in range(_CALLS):
        call()
    return (time.process_time() - started) / _CALLS * 1e6
