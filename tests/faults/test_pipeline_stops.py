"""What must not end, hold up or swell a pipeline: poison, sinks and disks that stay away, a second run of the same file."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from inferloop.core.errors import Conflict, StorageError, Unavailable
from inferloop.core.protocols import Delivery
from inferloop.data.journal import Journal
from inferloop.prediction.router import Router
from inferloop.streams.contexts import SinkContext, SourceContext
from inferloop.streams.delivery import acks
from inferloop.streams.events import EventKind, PipelineEvent, Summary
from inferloop.streams.sinks.memory import MemorySink
from inferloop.streams.sources.memory import MemorySource
from support.pipelines import StopAfter, content, message, numbers_router, open_journal, pipeline


@pytest.fixture
async def router(tmp_path: Path) -> AsyncIterator[Router]:
    async with numbers_router(tmp_path) as router:
        yield router


def sink(**options: Any) -> MemorySink:
    return MemorySink(SinkContext("demo", "act"), **options)


def away(_: Delivery) -> None:
    raise Unavailable("not there")


async def run(router: Router, journal: Journal, feed: MemorySource, act: MemorySink, **known: Any) -> Summary:
    options = {name: known.pop(name) for name in ("stop", "drain_s", "on_event", "dead") if name in known}
    sinks = {"act": act, "dead_letter": options.pop("dead", sink())}
    running = pipeline(**known).run(router=router, journal=journal, sources={"feed": feed}, sinks=sinks, **options)
    return await asyncio.wait_for(running, 60)


def feed_of(payloads: list[bytes], **options: Any) -> MemorySource:
    return MemorySource(payloads, SourceContext("demo", "feed"), **options)


async def test_a_value_nested_so_deep_that_no_payload_takes_it_is_a_dead_letter_and_spoils_no_neighbor(
    router: Router, tmp_path: Path
) -> None:
    declared = content()["message"]
    declared["json"]["fields"]["extra"] = "$.extra"
    deep: Any = 1
    for _ in range(800):
        deep = [deep]
    feed, act, dead = feed_of([message(1), message(2, extra=deep), message(3)]), sink(), sink()
    known = {"message": declared, "sinks": {"act": {"file": {"path": "act.jsonl"}}}}
    with open_journal(tmp_path) as journal:
        summary = await run(router, journal, feed, act, dead=dead, **known)
    assert (summary.decisions, summary.dead_letters) == (2, 1)
    assert [delivery.message_id for delivery in act.received] == ["m1", "m3"]
    assert [delivery.payload["reason"].split(":")[0] for delivery in dead.received] == ["rules"]


async def test_a_message_that_breaks_the_model_is_a_dead_letter_and_spoils_no_neighbor(router: Router, tmp_path: Path) -> None:
    class Brittle:
        async def predict_many(self, ref: str, samples: Sequence[Any], **known: Any) -> Any:
            if any(sample.id == "m2" for sample in samples):
                raise ZeroDivisionError
            return await router.predict_many(ref, samples, **known)

        def bundle(self, ref: str) -> Any:
            return router.bundle(ref)

    feed, act = feed_of([message(number) for number in range(1, 4)]), sink()
    with open_journal(tmp_path) as journal:
        summary = await run(Brittle(), journal, feed, act)  # type: ignore[arg-type]  # keeps the contract Predicts
    assert (summary.decisions, summary.dead_letters) == (2, 1)
    assert len(feed.acked) == 3


async def test_a_stop_is_heard_after_the_sources_ended_too(router: Router, tmp_path: Path) -> None:
    ending, feed = StopAfter(EventKind.DECIDED, 1, more_s=0.3), feed_of([message(1)])
    with open_journal(tmp_path) as journal:
        summary = await run(router, journal, feed, sink(fault=away), stop=ending.stop, on_event=ending, drain_s=0.1)
    assert (summary.decisions, feed.acked) == (1, [])


async def test_a_stop_does_not_wait_for_a_disk_that_takes_nothing(router: Router, tmp_path: Path) -> None:
    class Stuck(Journal):
        stuck = False

        def flush(self) -> None:
            if self.stuck:
                raise StorageError("the disk is full")
            super().flush()

    stop = asyncio.Event()
    with Stuck(tmp_path / "stuck.db") as journal:

        def on_event(_: PipelineEvent) -> None:
            journal.stuck = True
            stop.set()

        await run(router, journal, feed_of([message(1)], live=True), sink(), stop=stop, drain_s=0.2, on_event=on_event)
        journal.stuck = False


async def test_a_second_run_of_the_same_pipeline_is_refused_while_the_first_one_lasts(router: Router, tmp_path: Path) -> None:
    stop, act = asyncio.Event(), sink()
    with open_journal(tmp_path) as one, open_journal(tmp_path) as other:
        first = asyncio.create_task(run(router, one, feed_of([message(1)], live=True), act, stop=stop))
        while not act.received:
            await asyncio.sleep(0.01)
        with pytest.raises(Conflict, match="'demo' is running already"):
            await run(router, other, feed_of([message(1)]), sink())
        stop.set()
        await first
        assert (await run(router, other, feed_of([message(1)]), sink())).redelivered == 1


async def test_behind_a_delivery_that_hangs_only_so_many_messages_are_read(
    router: Router, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acks, "MOST_WAITING", 100)
    ending = StopAfter(EventKind.DECIDED, 100, more_s=0.3)  # long enough for many more
    rules = [{"name": "act", "when": "order == 'o0'", "send": ["act"]}]
    feed = feed_of([message(number) for number in range(2000)], chunk=20)
    with open_journal(tmp_path) as journal:
        summary = await run(router, journal, feed, sink(fault=away), rules=rules, stop=ending.stop, on_event=ending, drain_s=0.1)
    assert 100 <= summary.messages <= 120


async def test_a_sink_with_a_second_chance_gets_what_was_left_at_the_stop(router: Router, tmp_path: Path) -> None:
    ending, feed, act = StopAfter(EventKind.DECIDED, 1), feed_of([message(1)]), sink()
    with open_journal(tmp_path) as journal:
        await run(router, journal, feed, sink(fault=away), stop=ending.stop, on_event=ending, drain_s=0.1)
        summary = await run(router, journal, feed, act)
    assert (summary.recovered, summary.decisions, len(act.received)) == (1, 0, 1)
    assert json.loads(feed.acked[0])["id"] == "m1"
