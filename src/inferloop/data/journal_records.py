"""The rows of the decision journal and of the review queue."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec


class StoredDelivery(msgspec.Struct, frozen=True):
    """One rendered effect.

    Attributes:
        key: its idempotency key.
        payload: what the sink's config rendered; plain JSON values.
        delivered: whether the sink confirmed it; set by the journal, ignored on writing.
    """

    sink: str
    key: str
    payload: Mapping[str, Any]
    delivered: bool = False


class StoredDecision(msgspec.Struct, frozen=True):
    """What was decided about one message; a message of a pipeline has exactly one.

    Attributes:
        key: what the message belongs to; `Journal.erase` goes by it.
        time: when it was decided, seconds since the epoch.
        rule: the rule that matched; empty if none did.
        reason: why nothing is sent: `no_rule`, `stale`, `suppressed`, ...; empty for a decision that acts.
        deliveries: in the order in which they are to be sent; at most one for a pair of sink and key.
    """

    pipeline: str
    message_id: str
    key: str
    time: float
    rule: str
    reason: str
    label: str
    score: float
    prediction_id: str
    deliveries: tuple[StoredDelivery, ...] = ()

    @property
    def finished(self) -> bool:
        """Whether every delivery was confirmed."""
        return all(delivery.delivered for delivery in self.deliveries)


@dataclass(frozen=True, slots=True)
class ReviewItem:
    """One case for a human.

    Attributes:
        key: the idempotency key of its delivery; the same case is queued once.
        payload: what the sink's config rendered for the reviewer.
        time: when it was queued, seconds since the epoch.
        prediction_id: what feedback refers to; filled in from the decision when empty.
        label: the reviewer's answer; empty while it waits.
        by: who answered.
        done_at: when; None while it waits.
    """

    key: str
    pipeline: str
    message_id: str
    payload: Mapping[str, Any]
    time: float
    prediction_id: str = ""
    label: str = ""
    by: str = ""
    done_at: float | None = None


@dataclass(frozen=True, slots=True)
class JournalErased:
    """What an erase removed.

    Attributes:
        decisions: decisions reduced to their message id, so that a redelivery still does not act again.
        left: decisions with deliveries under way; they stay until delivered, erase again after that.
    """

    decisions: int
    deliveries: int
    reviews: int
    state: int
    left: int
