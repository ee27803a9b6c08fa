"""Sessions in memory that keep the contract of `Session`, and break it on purpose where a test says so."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np

from inferloop.core.datatypes import Array, DataType, Tensors
from inferloop.core.protocols import Session
from inferloop.core.signature import Signature, TensorSpec

FREE = Signature(
    inputs=(TensorSpec("x", DataType.INT64, (None, None)),),
    outputs=(TensorSpec("y", DataType.INT64, (None, None)),),
)
"""`x` INT64[N, L] to `y` INT64[N, L]: rows of different lengths cannot share a run."""


def rows(*values: int, length: int = 2) -> Tensors:
    """One row for each value, filled with it."""
    return {"x": np.repeat(np.array(values, dtype=np.int64)[:, None], length, axis=1)}


class SquareSession(Session):
    """Answers `x * x`, exactly; keeps what it was given in `runs`."""

    signature = FREE

    def __init__(self) -> None:
        self.runs: list[Array] = []
        self.closed = False

    def run(self, inputs: Tensors) -> dict[str, Array]:
        self.runs.append(inputs["x"])
        return {"y": inputs["x"] * inputs["x"]}

    def close(self) -> None:
        self.closed = True

    @property
    def seen(self) -> list[int]:
        """The values of all rows, in the order in which they ran."""
        return [int(row[0]) for run in self.runs for row in run]


class GatedSession(SquareSession):
    """A run begins, says so in `entered`, and ends when the test opens `gate`."""

    def __init__(self) -> None:
        super().__init__()
        self.entered = threading.Semaphore(0)
        self.gate = threading.Semaphore(0)
        self.is_running = threading.Event()

    def run(self, inputs: Tensors) -> dict[str, Array]:
        self.is_running.set()
        self.entered.release()
        assert self.gate.acquire(timeout=120), "the test never opened the gate"
        self.is_running.clear()
        return super().run(inputs)


class BreakingSession(SquareSession):
    """Raises what `fault` returns for a batch, if it returns something."""

    def __init__(self, fault: Callable[[Array], BaseException | None]) -> None:
        super().__init__()
        self._fault = fault
        self.faults = 0

    def run(self, inputs: Tensors) -> dict[str, Array]:
        error = self._fault(inputs["x"])
        if error is not None:
            self.faults += 1
            raise error
        return super().run(inputs)
