"""Decide history again, under other rules or with another model, before anything goes live.

    ledger ─ decisions, scores, kept inputs ─> [another model] ─> rules ─> what would differ

Rules are run as in production, one decision after the other in the order in which they were made, with a memory of their own
that begins empty. Nothing is sent and nothing is written.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

from inferloop.core.errors import InferloopError
from inferloop.core.sample import Sample
from inferloop.core.transform import FieldKind
from inferloop.data.ledger.records import DecidedRow
from inferloop.prediction.inputs import stored_sample
from inferloop.prediction.prediction import Prediction
from inferloop.streams.compiling import rulebook_of
from inferloop.streams.loading import PipelineSpec
from inferloop.streams.rules.memory import Memory
from inferloop.streams.rules.rulebook import STALE
from inferloop.streams.rules.scored import Scored
from inferloop.streams.scoring import scored_of

_CHUNK = 1024


class Answers(Protocol):
    """Another model: see `Predictor.apredict_many`."""

    @property
    def fields(self) -> Mapping[str, FieldKind]:
        """What a Sample must bring."""
        ...

    async def apredict_many(
        self, samples: Sequence[Sample], *, ids: Sequence[str], source: str = ""
    ) -> list[Prediction | InferloopError]:
        """An answer or an error for each."""
        ...


@dataclass(slots=True)
class Redecided:
    """One decision of history, and what it would be.

    Attributes:
        rule, reason, sinks: what would be decided.
        lacks: why it could not be decided again; empty if it could. It stays as it was then.
    """

    row: DecidedRow
    rule: str
    reason: str
    sinks: tuple[str, ...]
    lacks: str = ""

    @property
    def before(self) -> str:
        """What was done, in words."""
        decision = self.row.decision
        return _outcome(decision.rule, decision.reason, decision.sinks)

    @property
    def after(self) -> str:
        """What would be done, in words."""
        return _outcome(self.rule, self.reason, self.sinks)

    @property
    def differs(self) -> bool:
        """Whether something else would be done."""
        decision = self.row.decision
        return (self.rule, self.reason, self.sinks) != (decision.rule, decision.reason, decision.sinks)


async def redecide(
    spec: PipelineSpec, history: Iterable[DecidedRow], *, model: Answers | None = None
) -> AsyncIterator[Redecided]:
    """Decide history again, in its order.

    Args:
        spec: whose rules decide.
        history: the decisions, oldest first; with the kept inputs if there is a model.
        model: scores the kept inputs anew; None takes the scores of then.
    """
    again = _Again(spec)
    rows = iter(history)
    while chunk := list(islice(rows, _CHUNK)):
        scored = [_as_then(row) for row in chunk] if model is None else await _rescored(chunk, model)
        for row, answer in zip(chunk, scored, strict=True):
            yield again.decided(row, answer)


class _Again:
    """The rules with a memory of their own."""

    def __init__(self, spec: PipelineSpec) -> None:
        self._rulebook = rulebook_of(spec)
        self._memory = Memory()
        self._used_up: set[tuple[str, str]] = set()

    def decided(self, row: DecidedRow, scored: Scored | str) -> Redecided:
        then = row.decision
        if then.reason == STALE:
            return Redecided(row, then.rule, then.reason, then.sinks)
        if isinstance(scored, str):
            return Redecided(row, then.rule, then.reason, then.sinks, scored)
        verdict = self._rulebook.decide(_scope(row, scored), scored, self._memory, skipped=_nobody, seen=self._seen)
        return Redecided(row, verdict.rule, verdict.reason, tuple(effect.sink for effect in verdict.effects))

    def _seen(self, sink: str, value: object) -> bool:
        key = (sink, value if isinstance(value, str) else repr(value))
        before = key in self._used_up
        self._used_up.add(key)
        return before


def _scope(row: DecidedRow, scored: Scored) -> dict[str, Any]:
    """What expressions saw; the source and topic of a message are not kept."""
    then = row.decision
    time = then.time if then.event_time is None else then.event_time
    return {
        **then.fields,
        "label": scored.label,
        "score": scored.score,
        "scores": scored.scores,
        "id": then.message_id,
        "key": then.key,
        "time": time,
        "age_s": max(0.0, then.time - time),
        "source": "",
        "topic": "",
        "_prediction_id": then.prediction_id,
    }


def _as_then(row: DecidedRow) -> Scored | str:
    if row.scores is None:
        return "the prediction is no longer in the ledger"
    if not row.scores and not row.label:  # a model without labels: its number is not in the prediction
        return Scored(score=row.decision.score, prediction_id=row.decision.prediction_id)
    return Scored(row.label, row.score, row.scores, row.decision.prediction_id, abstained=not row.label)


async def _rescored(rows: Sequence[DecidedRow], model: Answers) -> list[Scored | str]:
    """What the model says of the kept inputs, or why it says nothing."""
    kept = (stored_sample(row.input, row.input_kind, model.fields) for row in rows)
    samples = {place: sample for place, sample in enumerate(kept) if sample is not None}
    ids = [rows[place].decision.prediction_id for place in samples]
    answers = await model.apredict_many(list(samples.values()), ids=ids) if samples else []
    found = dict(zip(samples, answers, strict=True))
    return list(_each(rows, found))


def _each(rows: Sequence[DecidedRow], found: dict[int, Prediction | InferloopError]) -> Iterator[Scored | str]:
    for place, row in enumerate(rows):
        answer = found.get(place)
        if isinstance(answer, Prediction):
            yield scored_of(answer)
        elif isinstance(answer, InferloopError):
            yield f"the model cannot do it: {answer.message}"
        else:
            yield "the input is no longer kept" if row.input is None else f"an input of the kind {row.input_kind} is no input"


def _outcome(rule: str, reason: str, sinks: tuple[str, ...]) -> str:
    return reason or f"{rule} -> {', '.join(sinks) or 'nobody'}"


def _nobody(_: str) -> None:
    """A rule that touched a missing value is skipped, as in production."""
