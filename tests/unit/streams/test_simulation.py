"""The simulator: it repeats itself, its faults hit, the pipeline survives them, and seeded bugs do not survive it."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest
from click.testing import CliRunner

from inferloop.cli.pipeline import command
from inferloop.core.errors import Conflict
from inferloop.streams import deciding, identity
from inferloop.streams.deciding import Decider, Draft
from inferloop.streams.delivery.forwarding import ForwardingSink
from inferloop.streams.delivery.outbox import StoredParcel
from inferloop.streams.dispatch import Dispatcher
from inferloop.streams.gathering import Gatherer
from inferloop.streams.journaling import write_decided
from inferloop.streams.loading import PipelineSpec
from inferloop.streams.pipeline import Pipeline
from inferloop.streams.rules.memory import Memory
from inferloop.streams.runner import Runner
from inferloop.streams.simulation.campaign import simulate_many
from inferloop.streams.simulation.outbox import SimulatedOutbox
from inferloop.streams.simulation.simulate import simulate
from inferloop.streams.simulation.virtual_loop import Stuck, VirtualLoop
from inferloop.streams.windows import BUFFER, Windows
from inferloop.streams.work import Work
from support.pipelines import content, save

SEEDS = 500
WITHIN = 1000
MQTT = {"mqtt": {"url": "mqtt://127.0.0.1:1883", "topics": ["orders"], "client_id": "orders"}}
TABLE = {"sqlite": {"path": "act.db", "table": "acts", "row": {"id": "=id", "order": "=order", "label": "=label"}}}
HOOK = {"webhook": {"url": "http://127.0.0.1:1/x", "json": {"id": "=id", "score": "=score"}}}
RULES = [
    {"name": "vote", "label": "hot", "above": 0.3, "vote": {"of": 4, "need": 2}, "cooldown": "1s", "send": ["act", "tell"]},
    {"name": "once", "label": "cold", "above": 0.5, "once_per": "order", "send": ["tell"]},
    {"name": "rest", "above": 0.8, "send": ["act"]},
]


def sections(**changes: Any) -> dict[str, Any]:
    known = {"sources": {"feed": MQTT}, "sinks": {"act": TABLE, "tell": HOOK}, "rules": RULES}
    return content(**{**known, **changes})


def spec(**changes: Any) -> PipelineSpec:
    return Pipeline.of(sections(**changes)).spec


LATCH = [
    {"name": "latch", "above": 3.0, "clear_below": 2.0, "for": "200ms", "send": ["act"]},
    {"name": "few", "below": 2.5, "budget": "3/s", "send": ["tell"]},
]
OPTIONAL = {"act": {**TABLE, "required": False}, "tell": HOOK}


@pytest.mark.parametrize(
    ("changes", "seeds"),
    [
        ({}, SEEDS),
        ({"sources": {"feed": {"file": {"path": "feed.jsonl"}}}}, 100),
        ({"rules": LATCH, "match": "all", "model": {"ref": "numbers@champion", "max_age": "800ms"}}, 100),
        ({"sources": {"one": MQTT, "other": {"file": {"path": "feed.jsonl"}}}, "sinks": OPTIONAL}, 100),
    ],
    ids=["broker", "file", "latch", "two sources"],
)
def test_nothing_is_lost_or_done_twice_and_every_fault_hits(changes: Mapping[str, Any], seeds: int) -> None:
    counts, failed = simulate_many(spec(**changes), range(seeds))
    assert [(outcome.seed, outcome.problems) for outcome in failed] == []
    assert counts["kill"] > seeds / 2
    assert counts["decided"] > counts["kill"], "not only kills"
    for what in ("redelivered", "repeated", "disconnect", "swap", "jump", "edit", "disk_full", "down", "model_away", "refused"):
        assert counts[what] > 0, what


WINDOWS: dict[str, Any] = {
    "window": {"hop": 6, "gap": "10m"},
    "model": {"ref": "numbers@champion", "inputs": {"values": "values"}},
    "rules": [RULES[0], RULES[2]],
}


def test_windows_survive_what_may_happen_as_messages_do() -> None:
    counts, failed = simulate_many(spec(**WINDOWS), range(200))
    assert [(outcome.seed, outcome.problems) for outcome in failed] == []
    assert counts["gathered"] > 1000
    assert counts["decided"] - counts["gathered"] > 500, "windows and dead letters"
    for what in ("kill", "redelivered", "disk_full", "refused"):
        assert counts[what] > 0, what


OUTBOX: dict[str, Any] = {
    "outbox": {"sqlite": {"path": "outbox.db"}},
    "rules": [*RULES[:2], {"name": "rest", "above": 0.2, "send": ["act", "tell"]}],
}


@pytest.mark.parametrize("max_age", [None, "2s"])
def test_what_waits_in_an_outbox_survives_what_may_happen(max_age: str | None) -> None:
    limits = {"max_age": max_age} if max_age else {}
    counts, failed = simulate_many(spec(**{**OUTBOX, "outbox": {**OUTBOX["outbox"], **limits}}), range(200))
    assert [(outcome.seed, outcome.problems) for outcome in failed] == []
    for what in ("kill", "stored", "held_up", "outbox_full", "repeated", "refused", "down"):
        assert counts[what] > 0, what


def test_a_seed_repeats_itself_in_another_process(tmp_path: Path) -> None:
    file = save(tmp_path / "orders.yaml", sections())
    code = (
        "import sys; from inferloop.streams.pipeline import Pipeline;"
        "from inferloop.streams.simulation.simulate import simulate;"
        "spec = Pipeline.load(sys.argv[1]).spec;"
        "print(*(simulate(spec, seed).digest for seed in range(20)))"
    )
    runs = [
        subprocess.run(
            [sys.executable, "-c", code, str(file)],
            check=True,
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
        ).stdout
        for hash_seed in ("1", "2")
    ]
    assert runs[0] == runs[1]
    assert len(set(runs[0].split())) == 20, "seeds differ"


def test_the_command_tells_what_was_tried_and_fails_with_what_it_found(tmp_path: Path) -> None:
    file = save(tmp_path / "orders.yaml", sections())
    tried = CliRunner().invoke(command, ["sim", str(file), "--seeds", "30", "--jobs", "1"])
    assert tried.exit_code == 0, tried.output
    assert "30 seeds" in tried.output
    assert "0 with problems" in tried.output
    alone = CliRunner().invoke(command, ["sim", str(file), "--seed", "3"])
    assert alone.exit_code == 0
    assert f"digest {simulate(spec(), 3).digest}" in alone.output
    report = json.loads(CliRunner().invoke(command, ["sim", str(file), "--seed", "3", "--json"]).output)
    assert (report["seeds"], report["problems"]) == (1, {})
    bad = CliRunner().invoke(command, ["sim", str(save(tmp_path / "bad.yaml", sections(rules=[])))])
    assert bad.exception is not None
    with pytest.MonkeyPatch.context() as patch:
        forgets_rule_state(patch)
        failed = CliRunner().invoke(command, ["sim", str(file), "--seeds", "40", "--jobs", "1"])
    assert failed.exit_code == 1
    assert "see one of them: --seed" in failed.output


def acknowledges_before_the_sink(patch: pytest.MonkeyPatch) -> None:
    admit = Dispatcher.admit

    def early(self: Dispatcher, works: Sequence[Work]) -> list[Work]:
        fresh = admit(self, works)
        for work in fresh:
            self._tell_sources(work.arrivals)
        return fresh

    patch.setattr(Dispatcher, "admit", early)


def decides_on_redelivery(patch: pytest.MonkeyPatch) -> None:
    async def nothing(_: Runner, __: Sequence[Work]) -> dict[str, Any]:
        return {}

    write = Decider.write

    def anew(self: Decider, draft: Draft, extra_state: Mapping[str, bytes]) -> None:
        decisions = {work.id: work.decision for work in draft.works}
        write(self, draft, extra_state)
        for work in draft.works:
            work.decision = decisions[work.id]

    patch.setattr(Runner, "_find", nothing)
    patch.setattr(Decider, "write", anew)


def forgets_the_name_of_the_pipeline(patch: pytest.MonkeyPatch) -> None:
    real = identity.effect_key
    for module in (identity, deciding):
        patch.setattr(module, "effect_key", lambda _, rule, sink, id_: real("", rule, sink, id_))


def journals_after_the_sink(patch: pytest.MonkeyPatch) -> None:
    async def later(self: Runner, works: list[Work]) -> None:
        draft = self._parts.decider.draft(works)

        async def write() -> None:
            await asyncio.sleep(0.5)
            await self._parts.journal.call(lambda: self._parts.decider.write(draft, {}))

        self._start(write())

    patch.setattr(Runner, "_store", later)


def forgets_rule_state(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Memory, "take_changes", lambda _: {})


def decides_a_batch_again_when_the_disk_was_full(patch: pytest.MonkeyPatch) -> None:
    async def again(self: Runner, works: list[Work]) -> None:
        def decide_and_write() -> None:
            self._parts.decider.write(self._parts.decider.draft(works), {})

        await self._parts.journal.call(decide_and_write)

    patch.setattr(Runner, "_store", again)


def takes_a_conflict_for_an_end(patch: pytest.MonkeyPatch) -> None:
    def write(self: Decider, draft: Draft, extra_state: Mapping[str, bytes]) -> None:
        decisions = [work.decision for work in draft.works if work.decision is not None]
        try:
            self._journal.write(decisions, {**draft.state, **extra_state}, draft.once_keys)
        except Conflict:
            for work in draft.works:
                work.decision = None

    patch.setattr(Decider, "write", write)


@pytest.mark.parametrize(
    ("bug", "told"),
    [
        (acknowledges_before_the_sink, "acknowledged early"),
        (decides_on_redelivery, "something else than was decided"),
        (forgets_the_name_of_the_pipeline, "never reached"),
        (journals_after_the_sink, "delivered before it was decided"),
        (forgets_rule_state, "forgot"),
        (decides_a_batch_again_when_the_disk_was_full, "forgot"),
        (takes_a_conflict_for_an_end, "did not reach"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_a_seeded_bug_is_found(bug: Callable[[pytest.MonkeyPatch], None], told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bug(monkeypatch)
    found: Counter[str] = Counter()
    for seed in range(WITHIN):
        problems = simulate(spec(), seed).problems
        found.update(problem for problem in problems if told in problem)
        if found:
            return
    pytest.fail(f"not found in {WITHIN} seeds")


def test_the_virtual_loop_jumps_to_what_comes_next_and_keeps_the_order_of_an_executor() -> None:
    from concurrent.futures import ThreadPoolExecutor

    loop = VirtualLoop(Random(1))
    done: list[int] = []

    async def main() -> float:
        thread = ThreadPoolExecutor(1)
        await asyncio.gather(*(loop.run_in_executor(thread, done.append, number) for number in range(5)), asyncio.sleep(3600))
        with pytest.raises(ZeroDivisionError):
            await loop.run_in_executor(thread, lambda: 1 / 0)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(60):
                await asyncio.Event().wait()
        return loop.time()

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        assert 3660 <= runner.run(main()) < 3661
    assert done == [0, 1, 2, 3, 4]


def test_a_wait_that_can_never_end_is_told() -> None:
    loop = VirtualLoop(Random(1))
    with pytest.raises(Stuck):
        loop.run_until_complete(asyncio.Event().wait())
    loop.close()


def forgets_buffers(patch: pytest.MonkeyPatch) -> None:
    take = Windows.take_changes
    patch.setattr(Windows, "take_changes", lambda self: {n: raw for n, raw in take(self).items() if not n.startswith(BUFFER)})


def forgets_whole_windows(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Windows, "take_due", lambda _: [])


def gathers_anew_after_a_failed_write(patch: pytest.MonkeyPatch) -> None:
    async def gather(self: Gatherer, samples: Sequence[Work], positions: Mapping[str, bytes]) -> list[Work]:
        def add_and_write() -> list[Work]:
            windows = self._add(samples)
            write_decided(self._journal.journal, self._pipeline, samples, {**self._windows.take_changes(), **positions})
            return windows

        return await self._journal.call(add_and_write) if samples else []

    patch.setattr(Gatherer, "gather", gather)


@pytest.mark.parametrize(
    ("bug", "told"),
    [
        (forgets_buffers, "neither a message nor a window"),
        (forgets_whole_windows, "is not decided"),
        (gathers_anew_after_a_failed_write, "forgot: "),
    ],
)
def test_a_seeded_bug_of_windows_is_found(
    bug: Callable[[pytest.MonkeyPatch], None], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bug(monkeypatch)
    _, failed = simulate_many(spec(**WINDOWS), range(WITHIN // 4))
    assert any(told in problem for outcome in failed for problem in outcome.problems), failed


def forgets_before_it_sends(patch: pytest.MonkeyPatch) -> None:
    forward = ForwardingSink._forward

    async def early(self: ForwardingSink, page: Sequence[StoredParcel]) -> None:
        await self._insisted(lambda: self._outbox.remove(page))
        await forward(self, page)

    patch.setattr(ForwardingSink, "_forward", early)


def stores_nothing(patch: pytest.MonkeyPatch) -> None:
    async def put(*_: Any) -> Counter[str]:
        return Counter()

    patch.setattr(SimulatedOutbox, "put", put)


def forwards_the_newest_first(patch: pytest.MonkeyPatch) -> None:
    page = SimulatedOutbox.page

    async def newest(self: SimulatedOutbox, sink: str, most: int) -> list[StoredParcel]:
        return (await page(self, sink, most))[::-1]

    patch.setattr(SimulatedOutbox, "page", newest)


@pytest.mark.parametrize(
    ("bug", "told"),
    [
        (forgets_before_it_sends, "never reached"),
        (stores_nothing, "acknowledged early"),
        (forwards_the_newest_first, "out of order"),
    ],
)
def test_a_seeded_bug_of_an_outbox_is_found(
    bug: Callable[[pytest.MonkeyPatch], None], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bug(monkeypatch)
    _, failed = simulate_many(spec(**OUTBOX), range(WITHIN // 20))
    assert any(told in problem for outcome in failed for problem in outcome.problems), failed
