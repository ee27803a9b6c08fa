"""A prediction as the tables hold it, and the ways to one: from a record, or late, from many answers at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain, islice
from math import nan
from typing import Any

import msgspec

from inferloop.core.errors import InvalidInput
from inferloop.data.ledger.records import DecidedRow, DecisionRecord, PredictionRecord

StoredPrediction = tuple[str, float, str, int, str, str, float, str, str, float, str, bytes | None, bytes | None]
"""id, time, model, version, key, label, score, scores as JSON, source, latency_s; of the input: kind, content, embedding"""

Maker = Callable[[Sequence[Any]], Iterable[StoredPrediction]]
"""Makes the predictions of many answers, in their order."""

LateAnswer = tuple[Maker, Any, int]
"""An answer whose predictions the ledger's thread makes, together with other answers of the same maker; and how many."""

_scores = msgspec.json.Decoder(dict[str, float | None])
_encoder = msgspec.json.Encoder(enc_hook=float)  # NumPy scalars


def stored_predictions(items: Iterable[PredictionRecord | LateAnswer]) -> list[StoredPrediction]:
    """The predictions of all items in their order.

    Raises:
        ValueError: a maker made fewer than it said.
        InvalidInput: a text in them is no valid Unicode.
    """
    late = [item if isinstance(item, tuple) else (_stored, item, 1) for item in items]
    answers: dict[Maker, list[Any]] = {}
    for maker, answer, _ in late:
        answers.setdefault(maker, []).append(answer)
    made = {maker: iter(maker(given)) for maker, given in answers.items()}
    stored = list(chain.from_iterable([islice(made[maker], rows) for maker, _, rows in late]))
    if len(stored) != sum(rows for _, _, rows in late):
        raise ValueError("a maker made fewer predictions than it said")
    return stored


def restored(row: tuple[Any, ...]) -> PredictionRecord:
    """The record of a StoredPrediction."""
    id_, time, model, version, key, label, score, scores, source, latency_s, kind, body, embedding = row
    return PredictionRecord(
        id=id_,
        time=time,
        model=model,
        version=version,
        key=key,
        label=label,
        score=_number(score),
        scores={label: _number(value) for label, value in _scores.decode(scores).items()},
        input=body,
        input_kind=kind or "",
        embedding=embedding,
        source=source,
        latency_s=latency_s,
    )


def restored_decision(row: tuple[Any, ...]) -> DecidedRow:
    """A decision with its prediction, of the columns of both."""
    *head, sinks, time, reason, key, event_time, looked_at, fields, label, score, scores, kind, body, truth = row
    message_id, prediction_id, pipeline, rule = head
    known = {name: _number(value) for name, value in _scores.decode(scores).items()} if scores is not None else None
    decision = DecisionRecord(
        message_id,
        prediction_id,
        pipeline,
        rule,
        () if sinks == "[]" else tuple(msgspec.json.decode(sinks)),
        time,
        reason,
        key,
        event_time,
        _number(looked_at),
        msgspec.json.decode(fields) if fields else {},
    )
    return DecidedRow(decision, label or "", _number(score), known, body, kind or "", truth or "")


def scores_json(scores: Iterable[Mapping[str, float]]) -> list[str]:
    """Scores by label as JSON, many at once; NaN is null."""
    return json_text(scores, many=True).split("\n")[:-1]


def json_text(value: Any, *, many: bool = False) -> str:
    """A value as JSON; with `many` each item of an iterable, followed by a line feed.

    Raises:
        InvalidInput: a text in it is no valid Unicode.
    """
    try:
        return (_encoder.encode_lines(value) if many else _encoder.encode(value)).decode()
    except UnicodeEncodeError as error:
        raise InvalidInput(f"text that is no valid Unicode cannot be stored: {error.object[:40]!r}") from error


def _stored(records: Sequence[PredictionRecord]) -> Iterable[StoredPrediction]:
    return map(_row, records, scores_json(record.scores or {} for record in records))


def _row(r: PredictionRecord, scores: str) -> StoredPrediction:
    judged = (r.label, float(r.score), scores)
    return (r.id, r.time, r.model, int(r.version), r.key, *judged, r.source, r.latency_s, r.input_kind, r.input, r.embedding)


def _number(value: float | None) -> float:
    # SQL and JSON know no NaN: it is stored as null.
    return nan if value is None else value
