"""The names that expressions see of one message."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from inferloop.core.sample import Sample
from inferloop.streams.expressions import BUILTINS
from inferloop.streams.rules.scored import Scored


def event_time(sample: Sample, received: float) -> float:
    """When it happened, seconds since the epoch: never later than its arrival, so that a wrong clock cannot block a key."""
    return received if sample.time is None else min(sample.time, received)


def scope_of(sample: Sample, scored: Scored, *, identity: str, received: float, now: float) -> dict[str, Any]:
    """Fields and built-in names; a field that is missing has no entry."""
    time = event_time(sample, received)
    return {
        **{name: value for name, value in sample.fields.items() if value is not None},
        "label": scored.label,
        "score": scored.score,
        "scores": scored.scores,
        "id": identity,
        "key": sample.key,
        "time": time,
        "age_s": max(0.0, now - time),
        "source": sample.source,
        "topic": sample.topic,
        "_prediction_id": scored.prediction_id,
    }


def recordable(fields: Mapping[str, Any], names: Collection[str]) -> dict[str, str | float | bool]:
    """Of these fields what can stand in a column: text, numbers and truth values."""
    found = ((name, fields.get(name)) for name in names)
    return {name: value for name, value in found if isinstance(value, str | float | int | bool)}


def names_of(kinds: Mapping[str, str]) -> dict[str, str]:
    """Every name that an expression may read, with its kind."""
    return {**kinds, **BUILTINS}
