"""What the model said of one message, as rules see it."""

from __future__ import annotations

import math
from collections.abc import Mapping

import msgspec


class Scored(msgspec.Struct, frozen=True):
    """The answer of the model.

    Attributes:
        label: the top label; empty for a model without labels, or where it abstained.
        score: the score of `label`, or the only output; NaN if there is none.
        abstained: the model was unsure, or the input is not of its world.
    """

    label: str = ""
    score: float = math.nan
    scores: Mapping[str, float] = msgspec.field(default_factory=dict)
    prediction_id: str = ""
    abstained: bool = False
    model: str = ""
    version: int = 0

    @classmethod
    def of_scores(cls, scores: Mapping[str, float], *, abstained: bool = False) -> Scored:
        """The answer whose top label has the highest of these scores."""
        if not scores:
            return cls(abstained=abstained)
        label = max(scores, key=lambda name: scores[name])
        return cls(label, scores[label], scores, abstained=abstained)
