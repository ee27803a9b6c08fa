"""The sections of a pipeline file that are no plugin's: pydantic models with the grammar's keys."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from inferloop.data.config import Duration, Rate, Size

NAME = r"^[A-Za-z][A-Za-z0-9_.-]{0,63}$"
Name = Annotated[str, Field(pattern=NAME)]

SOURCE_KEYS = ("rate", "buffer", "when_full")
SINK_KEYS = ("required",)
MOST_REMEMBERED = 10_000
"""Messages that a rule remembers of one key: its state is written with every decision that changes it."""


class Section(BaseModel):
    """A mapping whose keys are all known."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, arbitrary_types_allowed=True)


def _short(key: str) -> BeforeValidator:
    """Accept `cooldown: 24h` for `cooldown: {for: 24h}`."""
    return BeforeValidator(lambda value: value if isinstance(value, Mapping | BaseModel) or value is None else {key: value})


class Batch(Section):
    """How many messages go to the model together.

    Attributes:
        max_delay: seconds to wait for more, from the first message on.
    """

    max: int = Field(64, ge=1, le=4096)
    max_delay: Duration = 0.0


class ModelSection(Section):
    """Which model scores, and which message field is which of its fields.

    Attributes:
        inputs: field of the Bundle to field of the message; empty when the names agree.
        max_age: seconds after which a message is stale; None never.
    """

    ref: str = Field(min_length=1)
    inputs: dict[str, str] = Field(default_factory=dict)
    batch: Batch = Field(default_factory=lambda: Batch(max=64))
    max_age: Duration | None = None


class Vote(Section):
    """The condition held for `need` of the last `of` messages."""

    of: int = Field(ge=1, le=MOST_REMEMBERED)
    need: int = Field(ge=1)
    by: str = "key"

    @model_validator(mode="after")
    def _reachable(self) -> Vote:
        if self.need > self.of:
            raise ValueError(f"need {self.need} of {self.of} can never be reached")
        return self


class Span(Section):
    """A time, counted per value of `by`: how long a condition must hold, or how long a rule rests after it acted."""

    for_: Duration = Field(alias="for")
    by: str = "key"


class Budget(Section):
    """At most so many within a time, counted per value of `by`; every one is remembered for that time."""

    rate: Rate
    by: str = "key"

    @model_validator(mode="after")
    def _small(self) -> Budget:
        if self.rate.count > MOST_REMEMBERED:
            raise ValueError(f"must be at most {MOST_REMEMBERED}, it is {self.rate.count}")
        return self


class Change(Section):
    """How fast a value moves: its difference to the message before, for a time of `per`.

    Attributes:
        of: a field with numbers, or `score`.
        above: it rises faster than this; `below`, it rises slower, or falls faster where that is negative.
    """

    of: str = "score"
    per: Duration = Field(1.0, gt=0)
    above: float | None = None
    below: float | None = None
    by: str = "key"

    @model_validator(mode="after")
    def _bounded(self) -> Change:
        if self.above is None and self.below is None:
            raise ValueError("needs `above` or `below`")
        return self


class After(Section):
    """A sequence: another rule matched an earlier message, at most `within` before. What has led to an action is used up."""

    rule: str
    within: Duration = Field(gt=0)
    by: str = "key"


class RuleSection(Section):
    """What a score means and where it acts."""

    name: Name
    label: str | None = None
    above: float | None = None
    below: float | None = None
    when: str | None = None
    abstain: bool = False
    change: Change | None = None
    after: After | None = None
    vote: Vote | None = None
    for_: Annotated[Span | None, _short("for")] = Field(None, alias="for")
    cooldown: Annotated[Span | None, _short("for")] = None
    budget: Annotated[Budget | None, _short("rate")] = None
    clear_below: float | None = None
    once_per: str | None = None
    send: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _hysteresis(self) -> RuleSection:
        if self.clear_below is not None and (self.above is None or self.clear_below > self.above):
            raise ValueError("clear_below needs `above`, and must not be higher than it")
        return self

    @property
    def remembers(self) -> bool:
        """Whether it must see every message, those that another rule decides included."""
        return any(part is not None for part in (self.change, self.vote, self.for_, self.clear_below))

    @property
    def counts_by(self) -> tuple[str, ...]:
        """The names whose values its state is kept by."""
        spans = (self.change, self.after, self.vote, self.for_, self.cooldown, self.budget)
        return tuple(part.by for part in spans if part is not None) + (("key",) if self.clear_below is not None else ())


def _decoded(value: object) -> object:
    try:
        return base64.b64decode(value, validate=True) if isinstance(value, str) else value
    except binascii.Error as error:
        raise ValueError(f"is no base64: {error}") from error


class Moment(Section):
    """One message of a test: when it arrives, and what the model says of it.

    Attributes:
        message: a text, or a document that becomes one in the form that the codec reads.
        file: the payload is the content of this file, beside the pipeline file if the path is relative; instead of `message`.
        payload_base64: the payload as it stands in a dead letter; instead of `message`.
    """

    at: datetime | None = None
    message: Any = None
    file: Path | None = None
    payload_base64: Annotated[bytes, BeforeValidator(_decoded)] | None = None
    topic: str = ""
    headers: dict[str, str] = Field(default_factory=dict)
    scores: dict[str, float] = Field(default_factory=dict)
    abstain: bool = False

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        if len(self._forms()) != 1:
            raise ValueError("must have one of `message`, `file` and `payload_base64`")
        return self

    def _forms(self) -> list[object]:
        return [form for form in (self.message, self.file, self.payload_base64) if form is not None]


class TestSection(Moment):
    """Messages with given scores, and what must come of them: a count or one payload by sink."""

    __test__ = False
    name: str = ""
    messages: tuple[Moment, ...] = ()
    expect: dict[str, int | dict[str, Any]]

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        if len(self._forms()) + bool(self.messages) != 1:
            raise ValueError("must have either `message` or `messages`, or a `file` or `payload_base64` as the message")
        return self

    @property
    def moments(self) -> tuple[Moment, ...]:
        """The messages in order."""
        return self.messages or (self,)


def _some(rules: tuple[RuleSection, ...]) -> tuple[RuleSection, ...]:
    if not rules:
        raise ValueError("must have at least 1 entry")
    return rules


class SourceCommon(Section):
    """Keys of every source beside its plugin's; for a live source that cannot wait.

    Attributes:
        rate: what comes sooner after the message before is left out: of `5/s`, one every 200 ms passes.
        buffer: messages that may wait for the pipeline; 256 if the other keys are there.
        when_full: hold up the source, or leave out what waits longest.
    """

    rate: Rate | None = None
    buffer: int | None = Field(None, ge=1)
    when_full: Literal["block", "drop_oldest"] = "block"


class SinkCommon(Section):
    """Keys of every sink beside its plugin's.

    Attributes:
        required: whether a message is acknowledged only after this sink confirmed.
    """

    required: bool = True


class WindowSection(Section):
    """Samples of a sensor become the signal that the model asks for.

    Attributes:
        by: whose samples belong together: the key, or a field.
        hop: values from the beginning of one window to that of the next; as many as its length for windows side by side.
        length: values in a window; by default what the model says.
        gap: a longer pause between two samples begins a new window; what was gathered before is left out.
    """

    by: str = "key"
    hop: int = Field(ge=1, le=1 << 24)
    length: int | None = Field(None, ge=1, le=1 << 24)
    gap: Annotated[Duration, Field(gt=0)] | None = None


class OutboxFile(Section):
    """Where the outbox is; the file is made if it is not there."""

    path: Path


class OutboxSection(Section):
    """Store and forward: a message is done when what it led to is in a file; that is sent when the other side is there.

    Attributes:
        max_size: of everything that waits, in bytes.
        max_age: what waited longer becomes a dead letter; None for ever.
        when_full: hold up the sources, or drop what waits longest, counted.
    """

    sqlite: OutboxFile
    max_size: Annotated[Size, Field(ge=4096)] = 2 * 10**9
    max_age: Annotated[Duration, Field(gt=0)] | None = None
    when_full: Literal["block", "drop_oldest"] = "block"


class PipelineCommon(Section):
    """The keys of a pipeline file that are always the same."""

    pipeline: Name
    model: ModelSection
    match: Literal["first", "all"] = "first"
    rules: Annotated[tuple[RuleSection, ...], AfterValidator(_some)]
    window: WindowSection | None = None
    outbox: OutboxSection | None = None
    tests: tuple[TestSection, ...] = ()
