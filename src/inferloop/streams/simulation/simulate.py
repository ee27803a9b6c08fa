"""Run a pipeline file through everything that can go wrong, by a seed, and see whether it kept its promises.

plan(seed) ─> script: publish, stop, swap, jump, ...          judge: lost? twice? out of order? forgotten?
                 │                                              ^
              brokers ─> the real pipeline ─> shops ────────────┘      killed, restarted, killed, ...
                              └── the real journal, on a disk that fails
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random

from inferloop.streams import identity
from inferloop.streams.compiling import rulebook_of
from inferloop.streams.config import RuleSection, WindowSection
from inferloop.streams.contexts import SinkContext, SourceContext
from inferloop.streams.events import Summary
from inferloop.streams.gathering import windows_of
from inferloop.streams.guarantee import has_ids, make_sink, make_source
from inferloop.streams.loading import DEAD_LETTER, PipelineSpec
from inferloop.streams.pipeline import Pipeline
from inferloop.streams.simulation.disk import SimulatedJournal
from inferloop.streams.simulation.model import SimulatedCodec, SimulatedModel
from inferloop.streams.simulation.outbox import SimulatedOutbox
from inferloop.streams.simulation.plan import Moment, Publication, planned
from inferloop.streams.simulation.sink import Shop, SimulatedSink
from inferloop.streams.simulation.source import Broker, SimulatedSource
from inferloop.streams.simulation.verdict import Judge
from inferloop.streams.simulation.virtual_loop import Stuck, VirtualLoop
from inferloop.streams.simulation.world import Killed, World

_PATIENCE_S = 3600.0
_EDITS = 2
_LONGEST_WINDOW = 10


@dataclass(frozen=True, slots=True)
class Outcome:
    """One seed.

    Attributes:
        problems: what must not be; empty if all promises were kept.
        counts: how often what happened.
        digest: of the trace; two runs of one seed have the same.
        trace: one line an event.
    """

    seed: int
    problems: tuple[str, ...]
    counts: Mapping[str, int]
    digest: str
    trace: tuple[str, ...] = field(default=(), repr=False)


def simulate(spec: PipelineSpec, seed: int) -> Outcome:
    """Run one seed; the same seed and file give the same trace.

    Sources, sinks, model, codec, disk and clock are twins with the capabilities that the file's have; all between them is what
    runs in production. Opens no socket and no model, and writes to a folder of its own under the system's temporary one.
    """
    plan = planned(spec, seed)
    loop = VirtualLoop(Random(f"{seed} loop"))
    world = World(plan, loop)
    with tempfile.TemporaryDirectory(prefix="inferloop-sim-", dir=_fast_folder()) as folder, _silence():
        try:
            with asyncio.Runner(loop_factory=lambda: loop) as runner:
                runner.run(_Run(spec, world, Path(folder)).judged())
        except Stuck as error:
            world.blame(f"stuck: {error}")
        finally:
            loop.close()
    digest = hashlib.sha256("\n".join(world.trace).encode()).hexdigest()[:16]
    return Outcome(seed, tuple(world.problems), dict(world.counts), digest, tuple(world.trace))


class _Run:
    """One seed under way."""

    def __init__(self, spec: PipelineSpec, world: World, folder: Path) -> None:
        named = has_ids(spec)
        self._spec = replace(spec, codec=SimulatedCodec(spec.kinds, has_ids=named), window=_short(spec.window))
        self._world = world
        self._journal = folder / "journal.db"
        self._outbox = folder / "outbox.db"
        made = [(part, make_source(part, SourceContext(spec.name, part.name))) for part in spec.sources]
        self._brokers = {part.name: Broker(world, part.name, source) for part, source in made}
        self._shops = {part.name: Shop(part.name, make_sink(part, SinkContext(spec.name, part.name))) for part in spec.sinks}
        self._shops[DEAD_LETTER] = _letters(spec)
        self._required = frozenset(part.name for part in spec.sinks if part.common.required) | {DEAD_LETTER}
        anonymous = not named and not all(source.replayable for _, source in made)
        self._judge = Judge(
            world,
            self._spec.codec,
            self._shops,
            required=self._required,
            anonymous=anonymous,
            windows=lambda: windows_of(self._spec, None, {}),
            expires=spec.outbox is not None and spec.outbox.max_age is not None,
        )
        self._edited = [_edited(self._spec, world.plan.seed, number) for number in range(_EDITS)]
        self._model = SimulatedModel(self._spec, world)
        self._stop = asyncio.Event()
        self._rules = 0
        self._over = False

    async def judged(self) -> None:
        """Run, then tell the world what must not be."""
        self._take_keys_of_a_sibling()
        operating = asyncio.create_task(self._operate())
        await self._play()
        self._world.calm = True
        self._world.tell("calm")
        for broker in self._brokers.values():  # what was acknowledged and not heard comes again
            broker.disconnect()
        if not await self._finished():
            left = {name: sorted(broker.left) for name, broker in self._brokers.items() if broker.left}
            self._world.blame(f"stuck: not acknowledged after {_PATIENCE_S:g} s: {left}")
        self._over = True
        self._stop.set()
        await operating
        for problem in (
            *self._judge.lost(list(self._brokers.values())),
            *self._judge.disordered(),
            *self._judge.forgetful([rulebook_of(spec) for spec in self._edited]),
        ):
            self._world.blame(problem)

    async def _play(self) -> None:
        """Let happen what the plan says, in the order of time."""
        plan = self._world.plan
        events: list[Publication | Moment] = sorted([*plan.publications, *plan.moments], key=lambda event: event.at)
        for event in events:
            await asyncio.sleep(max(0.0, event.at - self._world.loop.now))
            if isinstance(event, Publication):
                self._brokers[event.source].publish(event.payload)
            else:
                self._happen(event)
        await asyncio.sleep(max(0.0, plan.end - self._world.loop.now))

    def _happen(self, moment: Moment) -> None:
        world = self._world
        world.tell(moment.what, moment.name)
        match moment.what:
            case "stop":
                self._stop.set()
            case "swap":
                world.version += 1
            case "jump":
                world.jump(moment.value)
            case "disconnect":
                self._brokers[moment.name].disconnect()
            case "storm":
                self._brokers[moment.name].storm()
            case "edit":
                self._stop.set()
                self._rules = 1

    async def _operate(self) -> None:
        """Start the process again whenever it has ended."""
        world = self._world
        while not self._over:
            world.generation += 1
            world.rules = self._rules
            world.alive = True
            self._stop = asyncio.Event()
            journal = SimulatedJournal(self._journal, world)
            world.tell("start", world.generation)
            outbox = SimulatedOutbox(self._outbox, self._spec.name, world) if self._spec.outbox is not None else None
            process = world.process = asyncio.create_task(self._process(journal, outbox))
            await asyncio.wait([process])
            self._look_at(process)
            world.alive = False
            journal.end()
            if outbox is not None:
                outbox.end()
            if not self._over:
                await asyncio.sleep(world.random.expovariate(1.0))

    async def _process(self, journal: SimulatedJournal, outbox: SimulatedOutbox | None) -> Summary:
        world = self._world
        pipeline = Pipeline(self._edited[world.rules])
        sources = {name: lambda context, broker=broker: self._source(broker, context) for name, broker in self._brokers.items()}
        return await pipeline.run(
            router=self._model,
            journal=journal,
            stop=self._stop,
            sources=sources,
            sinks={name: SimulatedSink(shop, world, self._judge.unstored) for name, shop in self._shops.items()},
            clock=world.clock,
            outbox=outbox,
        )

    def _source(self, broker: Broker, context: SourceContext) -> SimulatedSource:
        return SimulatedSource(broker, context, self._world, self._judge.identity, self._judge.missing)

    def _look_at(self, process: asyncio.Task[Summary]) -> None:
        world = self._world
        if not world.alive:  # killed: it may end in any way
            with suppress(asyncio.CancelledError):
                process.exception()
            return
        error = process.exception()
        if error is not None and not isinstance(error, Killed):
            world.blame(f"the pipeline ended with {type(error).__name__}: {error}")
        world.tell("end", world.generation)

    async def _finished(self) -> bool:
        until = self._world.loop.now + _PATIENCE_S
        while self._world.loop.now < until:
            await asyncio.sleep(1.0)
            waiting = any(broker.left for broker in self._brokers.values() if broker.durable)
            if not waiting and not any(self._judge.lost(())):
                return True
        return False

    def _take_keys_of_a_sibling(self) -> None:
        """Another pipeline with the same rules and sinks has seen the same messages: its keys must not be ours."""
        name = f"not-{self._spec.name}"
        for publication in self._world.plan.publications:
            for rule in self._spec.rules:
                for sink in rule.send:
                    key = identity.effect_key(name, rule.name, sink, f"m{publication.number}")
                    self._shops[sink].taken.add(key)


def _edited(spec: PipelineSpec, seed: int, number: int) -> PipelineSpec:
    """The file after an edit: other thresholds."""
    if not number:
        return spec
    random = Random(f"{seed} edit {number}")
    return replace(spec, rules=tuple(_moved(rule, random) for rule in spec.rules))


def _moved(rule: RuleSection, random: Random) -> RuleSection:
    changes = {}
    if rule.above is not None and rule.clear_below is None:
        changes["above"] = rule.above * random.uniform(0.5, 1.1)
    return rule.model_copy(update=changes)


def _short(window: WindowSection | None) -> WindowSection | None:
    """A window that the few messages of a run fill several times; each brings four values."""
    if window is None:
        return None
    length = min(window.length or _LONGEST_WINDOW, _LONGEST_WINDOW)
    return window.model_copy(update={"length": length, "hop": min(window.hop, 2 * length)})


def _letters(spec: PipelineSpec) -> Shop:
    from inferloop.streams.sinks.memory import MemorySink

    context = SinkContext(spec.name, DEAD_LETTER)
    return Shop(DEAD_LETTER, make_sink(spec.dead_letter, context) if spec.dead_letter is not None else MemorySink(context))


def _fast_folder() -> str | None:
    """Memory, where the system offers it: what survives is simulated, not tried."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108 - a folder of its own is made in it


@contextmanager
def _silence() -> Iterator[None]:
    """What a simulated process logs is no news."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)
