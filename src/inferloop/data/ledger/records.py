"""The rows of the ledger."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import nan


@dataclass(slots=True)
class PredictionRecord:
    """One answer of a model; not frozen because one is made for every answer, and that costs two microseconds.

    Attributes:
        id: the prediction id that the caller got; sorts by time.
        time: when it was answered, seconds since the epoch.
        key: what it belongs to (customer, device); `Ledger.erase` goes by it.
        score: the score of `label`.
        scores: the score of every label.
        input: the raw bytes of the request; the policy decides whether they are kept. None for a tensor request.
        input_kind: what `input` is: `text`, `image`, `audio`, `json`, ...; `sha256` once only the digest is left.
        embedding: one float32 row of the embedding output, little-endian; None if the model has none.
        source: who asked: `rest`, a pipeline's name, `shadow`, ...
    """

    id: str
    time: float
    model: str
    version: int
    key: str = ""
    label: str = ""
    score: float = 0.0
    scores: Mapping[str, float] = field(default_factory=dict)
    input: bytes | None = None
    input_kind: str = ""
    embedding: bytes | None = None
    source: str = ""
    latency_s: float = 0.0


@dataclass(slots=True)
class DecisionRecord:
    """What a pipeline did with a message; a copy for analysis, the journal is what counts. Not frozen, as PredictionRecord.

    Attributes:
        prediction_id: the prediction that it rests on; empty if none was made (stale, refused).
        time: when it was decided, seconds since the epoch.
        reason: why nothing is sent; empty for a decision that acts.
        key: what the message belongs to; `Ledger.erase` goes by it.
        event_time: when it happened, seconds since the epoch; None where an older version wrote the row.
        score: what the deciding rule looked at; NaN where there is none.
        fields: values of the message that its rules read, text, numbers and truth values only.
    """

    message_id: str
    prediction_id: str
    pipeline: str
    rule: str
    sinks: tuple[str, ...]
    time: float
    reason: str = ""
    key: str = ""
    event_time: float | None = None
    score: float = nan
    fields: Mapping[str, str | float | bool] = field(default_factory=dict)


@dataclass(slots=True)
class DecidedRow:
    """A decision with the prediction that it rests on, for those who decide it again.

    Attributes:
        scores: of every label; None if the prediction is gone, or there was none.
        input: the kept input of the model, see `PredictionRecord`; None where none is kept.
        truth: the last feedback; empty without.
    """

    decision: DecisionRecord
    label: str = ""
    score: float = 0.0
    scores: Mapping[str, float] | None = None
    input: bytes | None = None
    input_kind: str = ""
    truth: str = ""


@dataclass(frozen=True, slots=True)
class FeedbackRecord:
    """The truth about one prediction.

    Attributes:
        label: what would have been right.
        by: who says so.
        time: when it was said, seconds since the epoch.
    """

    prediction_id: str
    label: str
    by: str
    time: float


@dataclass(frozen=True, slots=True)
class LabeledRow:
    """A prediction and the last truth that was given for it.

    Attributes:
        time: when the truth was given, seconds since the epoch.
    """

    prediction: PredictionRecord
    truth: str
    time: float


@dataclass(frozen=True, slots=True)
class ModelStats:
    """What the ledger holds of one model."""

    model: str
    predictions: int
    labeled: int
    inputs: int
    oldest: float
    newest: float


@dataclass(frozen=True, slots=True)
class LedgerStats:
    """What the ledger holds.

    Attributes:
        size_bytes: the database file without its write-ahead log.
        queued: rows not on disk yet.
        lost: rows that this process could not write since it opened the ledger.
    """

    models: tuple[ModelStats, ...]
    decisions: int
    size_bytes: int
    queued: int
    lost: int


@dataclass(frozen=True, slots=True)
class Erased:
    """How many rows an erase removed."""

    predictions: int = 0
    inputs: int = 0
    feedback: int = 0
    decisions: int = 0
