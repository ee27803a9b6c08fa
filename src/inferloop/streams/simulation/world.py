"""What is outside of the process, and knows the truth: the clock, the trouble, what was decided, and what took effect."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

from inferloop.core.clock import Clock
from inferloop.data.journal import StoredDecision
from inferloop.streams.rules.scored import Scored
from inferloop.streams.simulation.plan import Plan, Trouble
from inferloop.streams.simulation.virtual_loop import VirtualLoop
from inferloop.streams.windows import GATHERED

EPOCH_S = 1_800_000_000.0


class Killed(Exception):  # ends the simulated process, no error of a user
    """The process has been killed: it does nothing any more."""


@dataclass(frozen=True, slots=True)
class Committed:
    """A decision as it went to disk, in that order.

    Attributes:
        rules: the number of the rule edit that it was made under.
        received: when the message arrived at the process that decided it.
    """

    decision: StoredDecision
    rules: int
    received: float


@dataclass(slots=True)
class World:
    """One simulated run. Event loop only.

    Attributes:
        generation: the number of the process that lives now.
        alive: whether it does.
        version: of the model that answers.
        rules: the number of the rule edit that the process started with.
        calm: trouble is over.
        committed: by message id.
        stored: sink and key of what the outbox took.
        received: by generation and message id.
        scored: what the model said, by prediction id.
        problems: what must not be.
        counts: how often what happened.
        trace: one line an event.
    """

    plan: Plan
    loop: VirtualLoop
    generation: int = 0
    alive: bool = False
    version: int = 1
    rules: int = 0
    calm: bool = False
    committed: dict[str, Committed] = field(default_factory=dict)
    stored: set[tuple[str, str]] = field(default_factory=set)
    received: dict[tuple[int, str], float] = field(default_factory=dict)
    scored: dict[str, Scored] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    trace: list[str] = field(default_factory=list)
    process: asyncio.Task[object] | None = None
    clock: Clock = field(init=False)
    random: Random = field(init=False)
    _jumped_s: float = 0.0
    _steps: int = 0

    def __post_init__(self) -> None:
        """Make the clock."""
        self.random = Random(f"{self.plan.seed} world")
        self.clock = Clock(self.time, self.loop.time, Random(f"{self.plan.seed} process"))

    def time(self) -> float:
        """Seconds since the epoch, jumps included."""
        return EPOCH_S + self.loop.now + self._jumped_s

    def jump(self, seconds: float) -> None:
        """Set the wall clock."""
        self._jumped_s += seconds

    def tell(self, what: str, *details: object) -> None:
        """Write a line of the trace, and count."""
        self.counts[what] += 1
        self.trace.append(" ".join((f"{self.loop.now:.6f}", what, *map(str, details))))

    def blame(self, problem: str) -> None:
        """Something happened that must not."""
        self.problems.append(problem)
        self.trace.append(f"{self.loop.now:.6f} PROBLEM {problem}")

    def check(self, generation: int) -> None:
        """Raise `Killed` in a process that is dead."""
        if not self.alive or generation != self.generation:
            raise Killed(f"process {generation}")

    def step(self, generation: int, what: str) -> None:
        """A point at which the process may be killed."""
        self.check(generation)
        self._steps += 1
        if self._steps in self.plan.kills and not self.calm:
            self.tell("kill", what)
            self.kill()
            raise Killed(what)

    def kill(self) -> None:
        """End the process where it stands."""
        self.alive = False
        if self.process is not None:
            self.process.cancel()

    def trouble(self, what: str, name: str = "") -> str:
        """How it fails now; empty if it works."""
        return "" if self.calm else _how(self.plan.troubles, what, name, self.loop.now)

    def commit(self, generation: int, decisions: Sequence[StoredDecision]) -> None:
        """Decisions are on disk."""
        for decision in decisions:
            before = self.committed.get(decision.message_id)
            if before is not None:
                self.blame(f"decided twice: {decision.message_id}")
            arrived = self.received.get((generation, decision.message_id), decision.time)
            self.committed[decision.message_id] = Committed(decision, self.rules, arrived)
            self.counts["gathered"] += decision.reason == GATHERED
            self.tell("decided", decision.message_id, decision.rule or "-", decision.reason or "-")


def _how(troubles: Sequence[Trouble], what: str, name: str, now: float) -> str:
    return next((t.how for t in troubles if t.what == what and t.name == name and t.start <= now < t.end), "")
