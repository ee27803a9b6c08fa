"""Labels and scores for a whole batch at once: per request they would cost more than a small model."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from inferloop.core.datatypes import Array, Tensors
from inferloop.core.protocols import Session
from inferloop.data.transforms.executor import TransformExecutor
from inferloop.data.transforms.scores import Scores

VERDICTS = "\0verdicts"
"""The name of the output that a `JudgedSession` adds; no tensor of a model can have it."""

_FEW = 16


class Verdict(NamedTuple):
    """What the scores of one row say.

    Attributes:
        label: the best label; empty for a model that declares no scores.
        score: the score of `label`.
        scores: the score of every label, the best first.
    """

    label: str
    score: float
    scores: dict[str, float]


NO_VERDICT = Verdict("", 0.0, {})


def verdicts(scores: Scores) -> list[Verdict]:
    """The verdict of every row: the same as `Scores.top` and `Scores.by_label`, row by row."""
    labels = scores.labels
    if scores.values.shape[0] == 1 and len(labels) <= _FEW and not scores.favored:
        return [_verdict(scores.values[0].tolist(), labels, scores.keep)]
    orders = np.argsort(-scores.values, axis=1, kind="stable")[:, : scores.keep or None].tolist()
    rows = zip(scores.best().tolist(), scores.values.tolist(), orders, strict=True)
    return [Verdict(labels[best], row[best], {labels[column]: row[column] for column in order}) for best, row, order in rows]


def _verdict(row: list[float], labels: tuple[str, ...], keep: int) -> Verdict:
    """One row of few columns without NumPy, whose calls cost more than the work."""
    order = sorted(range(len(row)), key=row.__getitem__, reverse=True)
    return Verdict(labels[order[0]], row[order[0]], {labels[column]: row[column] for column in order[: keep or None]})


class JudgedSession(Session):
    """Runs a session and adds one output, `VERDICTS`: an object array with the Verdict of each row.

    Attributes:
        plain: the session, for those who want no verdicts.
        concurrent: as the session.
    """

    def __init__(self, session: Session, executor: TransformExecutor) -> None:
        self.signature = session.signature
        self.plain = session
        self.concurrent: bool = getattr(session, "concurrent", False)
        self._executor = executor

    def run(self, inputs: Tensors) -> dict[str, Array]:
        """See `Session.run`."""
        outputs = self.plain.run(inputs)
        found = verdicts(self._executor.scores(outputs))
        outputs[VERDICTS] = np.fromiter(found, dtype=object, count=len(found))
        return outputs

    def close(self) -> None:
        """See `Session.close`."""
        self.plain.close()


def take_verdicts(outputs: Tensors, rows: int) -> list[Verdict]:
    """Take the verdicts out of the outputs; empty ones if nobody judged."""
    found = outputs.pop(VERDICTS, None)
    return [Verdict("", 0.0, {}) for _ in range(rows)] if found is None else found[:rows].tolist()
