"""How one model is held and scheduled; the registry, a repository or the command line says so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from inferloop.core.errors import InvalidInput
from inferloop.core.target import Target
from inferloop.prediction.limits import Limits
from inferloop.prediction.versions import LATEST, VersionPolicy

MOST_INSTANCES = 256
"""Each may hold a copy of the model and a thread."""
MOST_LEVELS = 256
"""Each has a queue of its own, which every run looks at."""


class Isolation(StrEnum):
    """Where the engine runs."""

    THREAD = "thread"
    PROCESS = "process"


class ControlKind(StrEnum):
    """What an input tells a model about its place in a sequence."""

    START = "start"
    END = "end"
    READY = "ready"
    CORRID = "corrid"


@dataclass(frozen=True, slots=True)
class Control:
    """An input that the server fills in, not the caller.

    Attributes:
        input: its name.
        kind: START and END are true in the first and last request, READY always, CORRID is the sequence's id.
        false: the value for no.
        true: the value for yes.
    """

    input: str
    kind: ControlKind
    false: float = 0
    true: float = 1


@dataclass(frozen=True, slots=True)
class StatePair:
    """A state tensor: what the model gave in `output` goes into `input` at the sequence's next request."""

    input: str
    output: str


@dataclass(frozen=True, slots=True)
class SequenceSettings:
    """A model that keeps state between the requests of a sequence.

    Attributes:
        max_idle_s: a sequence that is silent for so long is forgotten.
        max_sequences: how many may be open at once.
        states: the state tensors; left out, the Signature's tensors of role `state`, inputs and outputs paired in their order.
        controls: inputs that the server fills in.
    """

    max_idle_s: float = 60.0
    max_sequences: int = 1024
    states: tuple[StatePair, ...] = ()
    controls: tuple[Control, ...] = ()

    def __post_init__(self) -> None:
        if self.max_idle_s <= 0 or self.max_sequences < 1:
            raise InvalidInput(
                f"max_idle_s {self.max_idle_s:g}, max_sequences {self.max_sequences} do not fit",
                hint="a sequence may be silent for some time, and at least 1 be open",
            )


@dataclass(frozen=True, slots=True)
class Step:
    """One model of an ensemble.

    Attributes:
        model: its reference.
        version: the version to ask; None for the one that the reference means.
        inputs: the model's input -> the ensemble's tensor.
        outputs: the model's output -> the ensemble's tensor.
        when: a CEL condition over the ensemble's one-element tensors; the step is skipped where it is false.
    """

    model: str
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    version: int | None = None
    when: str = ""


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """One model's settings.

    Attributes:
        target: where it is loaded; None for the server's.
        limits: its batching and bounds; None for the server's.
        instances: sessions that run side by side, at most `MOST_INSTANCES`.
        priority_levels: how many priorities there are, 1 the first, at most `MOST_LEVELS`; 0 for no priorities.
        default_priority: for requests that name none.
        queue_timeout_s: how long a request may wait for the engine before it is refused; 0 for no bound.
        warmup_rows: the batch sizes that are run before the model is ready, at most `max_batch`.
        cached: whether equal requests may get a remembered answer; never for sequences and decoupled models.
        cache_bytes: what the remembered answers may take.
        sequence: set for a model whose state the server keeps between requests; without it callers send and get the state.
        decoupled: whether a request may get no, one or many answers: what the engine's `StreamingSession` yields, else each
            slice of the outputs' first axis beside the batch axis.
        ensemble: the steps, for a model that is made of others.
        isolation: whether the engine has a process of its own.
        parameters: what the model's owner noted; shown in its configuration.
        versions: which stored versions a repository serves.
    """

    target: Target | None = None
    limits: Limits | None = None
    instances: int = 1
    priority_levels: int = 0
    default_priority: int = 0
    queue_timeout_s: float = 0.0
    warmup_rows: tuple[int, ...] = ()
    cached: bool = False
    cache_bytes: int = 64 << 20
    sequence: SequenceSettings | None = None
    decoupled: bool = False
    ensemble: tuple[Step, ...] = ()
    isolation: Isolation = Isolation.THREAD
    parameters: Mapping[str, str] = field(default_factory=dict)
    versions: VersionPolicy = LATEST

    def __post_init__(self) -> None:
        if (
            not 1 <= self.instances <= MOST_INSTANCES
            or self.queue_timeout_s < 0
            or self.cache_bytes < 0
            or min(self.warmup_rows, default=1) < 1
        ):
            raise InvalidInput(
                f"instances {self.instances}, queue_timeout_s {self.queue_timeout_s}, cache_bytes {self.cache_bytes}, "
                f"warmup_rows {list(self.warmup_rows)} do not fit",
                hint=f"1 to {MOST_INSTANCES} instances, warm-up rows are at least 1, the others at least 0",
            )
        levels = self.priority_levels
        if not 0 <= levels <= MOST_LEVELS or not 0 <= self.default_priority <= levels:
            raise InvalidInput(
                f"default_priority {self.default_priority} is none of {levels} levels",
                hint=f"1 is the first level, {MOST_LEVELS} are the most",
            )


PLAIN = ModelSettings()
