"""Decide once: from scored work to decisions in the journal, with the rule state and once_per keys that belong to them.

Runs on the journal's thread, a batch at a time; what it returns is on disk.
"""

from __future__ import annotations

import base64
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any

from inferloop.core.errors import InvalidInput
from inferloop.core.protocols import Delivery
from inferloop.core.sample import Sample
from inferloop.data.journal import Journal, StoredDecision, StoredDelivery
from inferloop.streams.identity import effect_key, once_key
from inferloop.streams.journaling import write_decided
from inferloop.streams.loading import DEAD_LETTER
from inferloop.streams.rules.memory import Memory
from inferloop.streams.rules.rulebook import STALE, Effect, Rulebook, Verdict
from inferloop.streams.rules.scored import Scored
from inferloop.streams.scope import scope_of
from inferloop.streams.work import Work

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Draft:
    """Decisions of one batch, not on disk yet.

    Attributes:
        works: those that get a decision, in order, with it.
        skipped: rules whose condition touched a missing value, one entry a message.
    """

    works: list[Work] = field(default_factory=list)
    state: dict[str, bytes] = field(default_factory=dict)
    once_keys: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)


class Decider:
    """Applies the rules of one pipeline and stores what they say. Used by the journal's thread only.

    Args:
        clock: seconds since the epoch.
    """

    def __init__(
        self, pipeline: str, rulebook: Rulebook, journal: Journal, *, memory: Memory, clock: Callable[[], float] = time.time
    ) -> None:
        self._pipeline = pipeline
        self._rulebook = rulebook
        self._journal = journal
        self._memory = memory
        self._clock = clock

    def draft(self, works: Sequence[Work]) -> Draft:
        """Decide every piece of work, in order. Changes the rule state in memory: never call it twice for one message.

        Raises:
            StorageError: the journal cannot be read; nothing was decided, and it may be tried again.
        """
        draft = Draft()
        now = self._clock()
        before = self._used_up(works, now)
        taken: set[str] = set()
        for work in works:
            if work.error is None:
                try:
                    work.decision = self._decided(work, draft, now, before, taken)
                except Exception as error:  # a message that breaks the rules is poison, not the end of the pipeline
                    log.exception("rules raised what they must not", extra={"pipeline": self._pipeline, "message_id": work.id})
                    work.error = InvalidInput(f"the rules broke: {type(error).__name__}: {error}")
                    work.error_kind = "rules"
            if work.error is not None:
                work.decision = self._rejected(work, now)
            draft.works.append(work)
        draft.state = {**self._memory.take_changes(), **{work.clears: b"" for work in works if work.clears}}
        draft.once_keys = sorted(taken)
        return draft

    def write(self, draft: Draft, extra_state: Mapping[str, bytes]) -> None:
        """Put a draft on disk; may be tried again. A message that was decided meanwhile keeps that decision.

        Raises:
            StorageError: nothing was written.
        """
        write_decided(self._journal, self._pipeline, draft.works, {**draft.state, **extra_state}, draft.once_keys)

    def _used_up(self, works: Sequence[Work], now: float) -> AbstractSet[str]:
        """The `once_per` keys of these messages that earlier decisions used up: looked for before anything is decided."""
        if not self._rulebook.asks_once:
            return frozenset()
        asked = [
            once_key(self._pipeline, sink, value)
            for work in works
            if work.error is None and work.sample is not None
            for sink, value in self._rulebook.once_values(_scope(work, work.sample, now), work.scored or Scored())
        ]
        return self._journal.seen_once(self._pipeline, asked) if asked else frozenset()

    def _decided(self, work: Work, draft: Draft, now: float, before: AbstractSet[str], taken: set[str]) -> StoredDecision:
        if work.sample is None:
            raise AssertionError(f"work {work.id} was neither decoded nor rejected")
        scored = work.scored or Scored()
        if work.stale:
            verdict = Verdict("", STALE, scored.label, scored.score)
        else:
            scope = _scope(work, work.sample, now)
            seen = lambda sink, value: self._seen(sink, value, before, taken)  # noqa: E731
            verdict = self._rulebook.decide(scope, scored, self._memory, skipped=draft.skipped.append, seen=seen)
        return StoredDecision(
            pipeline=self._pipeline,
            message_id=work.id,
            key=work.sample.key,
            time=now,
            rule=verdict.rule,
            reason=verdict.reason,
            label=verdict.label,
            score=verdict.score if verdict.score == verdict.score else 0.0,  # NaN is no JSON
            prediction_id=scored.prediction_id,
            deliveries=tuple(self._delivery(effect, work.id) for effect in verdict.effects),
        )

    def _delivery(self, effect: Effect, message_id: str) -> StoredDelivery:
        if effect.once is None:
            key = effect_key(self._pipeline, effect.rule, effect.sink, message_id)
        else:
            key = once_key(self._pipeline, effect.sink, effect.once)
        return StoredDelivery(effect.sink, key, effect.payload)

    def _seen(self, sink: str, value: object, before: AbstractSet[str], taken: set[str]) -> bool:
        key = once_key(self._pipeline, sink, value)
        if key in taken or key in before:
            return True
        taken.add(key)
        return False

    def _rejected(self, work: Work, now: float) -> StoredDecision:
        reason = f"{work.error_kind}: {work.error}"
        payload = dead_letter(work, self._pipeline, reason)
        delivery = StoredDelivery(DEAD_LETTER, effect_key(self._pipeline, "", DEAD_LETTER, work.id), payload)
        key = work.sample.key if work.sample is not None else ""
        return StoredDecision(self._pipeline, work.id, key, now, "", f"{DEAD_LETTER}: {reason}", "", 0.0, "", (delivery,))


def _scope(work: Work, sample: Sample, now: float) -> dict[str, Any]:
    return scope_of(sample, work.scored or Scored(), identity=work.id, received=work.message.received, now=now)


def refusal_letter(pipeline: str, sink: str, delivery: Delivery, reason: str, **more: Any) -> Delivery:
    """The dead letter of a delivery that a sink refused, with a key of its own."""
    payload = {
        "pipeline": pipeline,
        "id": delivery.message_id,
        "sink": sink,
        "key": delivery.key,
        "reason": reason,
        "delivery": dict(delivery.payload),
        **more,
    }
    return Delivery(effect_key(pipeline, sink, DEAD_LETTER, delivery.key), payload, delivery.message_id)


def dead_letter(work: Work, pipeline: str, reason: str) -> dict[str, Any]:
    """A message that cannot be decided, with its original bytes: as `payload` if they are text, else as `payload_base64`."""
    message = work.message
    try:
        original = {"payload": message.payload.decode()}
    except UnicodeDecodeError:
        original = {"payload_base64": base64.b64encode(message.payload).decode()}
    return {
        "pipeline": pipeline,
        "id": work.id,
        "source": message.source,
        "topic": message.topic,
        "position": message.position,
        "headers": dict(message.headers),
        "received": message.received,
        "reason": reason,
        **original,
    }
