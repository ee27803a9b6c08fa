"""Many seeds, in several processes, and what is told about them."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from inferloop.streams.guarantee import Promise, guarantees
from inferloop.streams.loading import PipelineSpec, load_spec
from inferloop.streams.simulation.plan import Plan, planned
from inferloop.streams.simulation.simulate import Outcome, simulate

_CHUNK = 25
_SHOWN = 5
_COUNTS = {
    "decided": "decisions",
    "effect": "effects",
    "kill": "kills",
    "stop": "restarts",
    "redelivered": "redelivered messages",
    "deaf": "acknowledgments not heard",
    "repeated": "repeated deliveries that did nothing",
    "twice": "repeated deliveries that acted again (the sink takes no key)",
    "down": "deliveries that failed",
    "disk_full": "writes that failed",
    "model_away": "calls of the model that failed",
    "swap": "model swaps",
    "edit": "rule edits",
    "jump": "clock jumps",
}


@dataclass(frozen=True, slots=True)
class Report:
    """What came of some seeds.

    Attributes:
        counts: how often what happened, in all.
        problems: by seed; empty if all promises were kept.
        weak: pairs of source and sink that promise less than one effect a message, and why.
        trace: what happened, of a seed that was run alone.
    """

    seeds: int
    seconds: float
    counts: Mapping[str, int]
    problems: Mapping[int, Sequence[str]]
    weak: Sequence[str]
    trace: Sequence[str] = field(default=())

    def lines(self) -> Iterator[str]:
        """For people."""
        yield from self.trace
        yield f"{self.seeds} seeds in {self.seconds:.1f} s: {len(self.problems)} with problems"
        yield from (f"  {self.counts.get(name, 0):>9,} {text}" for name, text in _COUNTS.items())
        yield from (f"  note: {weak}" for weak in self.weak)
        for seed, problems in list(self.problems.items())[:_SHOWN]:
            yield f"seed {seed}: {problems[0]}" + (f" (and {len(problems) - 1} more)" if len(problems) > 1 else "")
        if self.problems and self.seeds > 1:
            yield f"see one of them: --seed {next(iter(self.problems))}"


def campaign(file: Path, seeds: int, *, jobs: int | None = None) -> Report:
    """Run the seeds from 0 on, in `jobs` processes (None: one a CPU).

    Raises:
        NotFound: there is no such file.
        InvalidConfig: all problems of the file.
    """
    spec = load_spec(file, offline=True)
    started = time.monotonic()
    chunks = [range(start, min(start + _CHUNK, seeds)) for start in range(0, seeds, _CHUNK)]
    counts: Counter[str] = Counter()
    failed: list[Outcome] = []
    with ProcessPoolExecutor(jobs or os.cpu_count(), initializer=_load, initargs=(file,)) as pool:
        for counted, found in pool.map(_simulate_chunk, chunks):
            counts.update(counted)
            failed += found
    problems = {outcome.seed: outcome.problems for outcome in failed}
    return Report(seeds, time.monotonic() - started, dict(counts), problems, _weak(spec))


def one(spec: PipelineSpec, seed: int) -> Report:
    """Run one seed, and tell all of it."""
    started = time.monotonic()
    outcome = simulate(spec, seed)
    problems = {seed: outcome.problems} if outcome.problems else {}
    trace = (*_described(planned(spec, seed)), *outcome.trace, f"digest {outcome.digest}")
    return Report(1, time.monotonic() - started, outcome.counts, problems, _weak(spec), trace)


def simulate_many(spec: PipelineSpec, seeds: Iterable[int]) -> tuple[Counter[str], list[Outcome]]:
    """Run seeds one after the other; returns the counts of all, and the outcomes with problems."""
    counts: Counter[str] = Counter()
    failed: list[Outcome] = []
    for seed in seeds:
        outcome = simulate(spec, seed)
        counts.update(outcome.counts)
        if outcome.problems:
            failed.append(outcome)
    return counts, failed


_loaded: list[PipelineSpec] = []
"""What the processes of a campaign simulate: a spec has classes made from its file, which do not travel."""


def _load(file: Path) -> None:
    _loaded[:] = [load_spec(file, offline=True)]


def _simulate_chunk(seeds: Iterable[int]) -> tuple[Counter[str], list[Outcome]]:
    return simulate_many(_loaded[0], seeds)


def _weak(spec: PipelineSpec) -> list[str]:
    return [
        f"{pair.source} -> {pair.sink}: {pair.promise}; {pair.why}"
        for pair in guarantees(spec).pairs
        if pair.promise is not Promise.EFFECT_ONCE
    ]


def _described(plan: Plan) -> Iterator[str]:
    yield f"{len(plan.publications)} messages, killed at steps {sorted(plan.kills) or 'none'}"
    yield f"refused for good {plan.refusing} %, acknowledgments not heard {plan.deaf} %"
    yield from (f"{t.start:.3f} to {t.end:.3f}: {t.what} {t.name} {t.how}".replace("  ", " ") for t in plan.troubles)
    yield from (f"{moment.at:.3f}: {moment.what} {moment.name}" for moment in plan.moments)
