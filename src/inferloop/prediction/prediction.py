"""What a Predictor answers, and the ids that name an answer."""

from __future__ import annotations

import os
import random
import time
from dataclasses import dataclass

import msgspec

from inferloop.core.datatypes import Array

_random = random.Random()  # of our own: a program that seeds `random` must not repeat ids
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_random.seed)


def new_id() -> str:
    """32 hexadecimal digits that sort by time: nanoseconds since the epoch, then 64 random bits."""
    return f"{time.time_ns():016x}{_random.getrandbits(64):016x}"


class Prediction(msgspec.Struct, frozen=True, eq=False):
    """The answer to one Sample.

    Attributes:
        id: names this prediction in the ledger; feedback refers to it.
        version: 0 for a Bundle outside of a registry.
        label: the best label; empty if the model declares no labels.
        score: the score of `label`.
        scores: the score of every label.
        outputs: every output of the model, one row each (axis 0 of length 1).
    """

    id: str
    model: str
    version: int
    label: str
    score: float
    scores: dict[str, float]
    outputs: dict[str, Array]


@dataclass(slots=True, eq=False)
class Inference:
    """The answer to a request of tensors; not frozen because one is made for every request, and that costs a microsecond.

    Attributes:
        id: names this answer; the ledger has it for one row, `ID.0`, `ID.1`, ... for several.
        outputs: every output of the model, axis 0 of length `rows`.
    """

    id: str
    model: str
    version: int
    outputs: dict[str, Array]
    rows: int

    @property
    def row_ids(self) -> tuple[str, ...]:
        """The id of each row in the ledger."""
        return row_ids(self.id, self.rows)


def row_ids(prediction_id: str, rows: int) -> tuple[str, ...]:
    """The ids of the rows of one answer."""
    return (prediction_id,) if rows == 1 else tuple(f"{prediction_id}.{row}" for row in range(rows))
