"""Whole pipelines with a real Router and journal: every message ends as exactly one decision or dead letter."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from inferloop.core.errors import InvalidConfig, InvalidInput, StorageError, Unavailable
from inferloop.core.protocols import Delivery
from inferloop.data.journal import Journal
from inferloop.data.ledger.ledger import Ledger
from inferloop.prediction.router import Router
from inferloop.streams.contexts import SinkContext, SourceContext
from inferloop.streams.events import EventKind, PipelineEvent, Summary
from inferloop.streams.sinks.memory import MemorySink
from inferloop.streams.sources.memory import MemorySource
from support.pipelines import COLD, StopAfter, message, numbers_router, open_journal, pipeline


@pytest.fixture
async def router(tmp_path: Path) -> AsyncIterator[Router]:
    async with numbers_router(tmp_path) as router:
        yield router


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with open_journal(tmp_path) as journal:
        yield journal


def source(payloads: list[bytes], **options: Any) -> MemorySource:
    return MemorySource(payloads, SourceContext("demo", "feed"), **options)


def sink(**options: Any) -> MemorySink:
    return MemorySink(SinkContext("demo", "act"), **options)


async def run(
    router: Router, journal: Journal, feed: MemorySource, act: MemorySink, dead: MemorySink | None = None, **known: Any
) -> Summary:
    options = {name: known.pop(name) for name in ("ledger", "stop", "on_event", "drain_s") if name in known}
    sinks = {"act": act, "dead_letter": dead or sink()}
    return await pipeline(**known).run(router=router, journal=journal, sources={"feed": feed}, sinks=sinks, **options)


async def test_every_message_is_decided_delivered_and_acknowledged_in_order(router: Router, journal: Journal) -> None:
    payloads = [message(number) for number in range(500)]
    feed, act = source(payloads), sink()
    summary = await run(router, journal, feed, act)
    assert (summary.messages, summary.decisions, summary.acknowledged, summary.delivered) == (500, 500, 500, {"act": 500})
    assert feed.acked == payloads
    assert [delivery.payload["id"] for delivery in act.received] == [f"m{number}" for number in range(500)]


async def test_poison_is_dead_lettered_with_reason_and_bytes_and_spoils_no_neighbour(router: Router, journal: Journal) -> None:
    payloads = [b"\xff{%d" % number if number % 100 == 0 else message(number) for number in range(400)]
    payloads[50] = message(50, values=["no", "numbers"])
    payloads[60] = message(60, values=[1.0])
    feed, act, dead = source(payloads), sink(), sink()
    summary = await run(router, journal, feed, act, dead)
    letters = [dict(delivery.payload) for delivery in dead.received]
    assert (summary.decisions, summary.dead_letters) == (394, 6)
    assert feed.acked == payloads
    assert len(act.received) == 394
    assert letters[0]["payload_base64"] == "/3sw"
    assert letters[0]["reason"].startswith("decode: the payload is no JSON")
    assert any(letter["reason"].startswith("model: ") and letter["id"] == "m60" for letter in letters)
    assert any(json.loads(letter["payload"])["id"] == "m50" for letter in letters if "payload" in letter)


async def test_a_message_that_comes_again_finds_its_decision_though_rule_and_model_changed(
    tmp_path: Path, router: Router, journal: Journal
) -> None:
    payloads = [message(number) for number in range(20)]
    first, act = source(payloads), sink()
    await run(router, journal, first, act)
    new = message(20)
    again = source([*payloads, new])
    async with numbers_router(tmp_path / "other", COLD) as cold:
        summary = await run(cold, journal, again, act, rules=[{"name": "all", "send": ["act"]}])
    assert (summary.decisions, summary.redelivered, summary.acknowledged) == (1, 20, 21)
    assert len(act.received) == 21
    assert again.acked == [*payloads, new]


async def test_the_same_id_twice_in_one_batch_is_decided_once(router: Router, journal: Journal) -> None:
    feed, act = source([message(1), message(2), message(1, total=9.0), message(1, total=8.0)]), sink()
    summary = await run(router, journal, feed, act)
    assert (summary.messages, summary.decisions, summary.redelivered) == (4, 2, 2)
    assert len(feed.acked) == 4
    assert len(act.received) == 2


async def test_once_per_suppresses_a_second_refund_of_one_order_even_in_the_next_run(router: Router, journal: Journal) -> None:
    rules = [{"name": "refund", "once_per": "order", "send": ["act"]}]
    act = sink()
    first = await run(
        router, journal, source([message(1, order="o"), message(2, order="o"), message(3, order="p")]), act, rules=rules
    )
    second = await run(router, journal, source([message(4, order="o")]), act, rules=rules)
    assert (first.reasons, second.reasons) == ({"suppressed: once_per": 1}, {"suppressed: once_per": 1})
    assert len(act.received) == 2


async def test_rule_state_survives_a_restart(router: Router, journal: Journal) -> None:
    rules = [{"name": "seldom", "cooldown": "1h", "send": ["act"]}]
    act = sink()
    for number in range(3):
        await run(router, journal, source([message(number, device="d")]), act, rules=rules)
    assert len(act.received) == 1


async def test_an_old_message_is_a_decision_with_the_reason_stale(router: Router, journal: Journal) -> None:
    act = sink()
    old = message(1, at=time.time() - 60)
    summary = await run(router, journal, source([old, message(2)]), act, model={"ref": "numbers@champion", "max_age": "10s"})
    assert summary.reasons == {"stale": 1}
    assert [delivery.message_id for delivery in act.received] == ["m2"]


async def test_a_refused_delivery_becomes_a_dead_letter_and_the_message_is_acknowledged(router: Router, journal: Journal) -> None:
    def refuse(delivery: Delivery) -> None:
        if delivery.message_id == "m3":
            raise InvalidInput("no such order")

    feed, act, dead = source([message(number) for number in range(6)]), sink(fault=refuse), sink()
    summary = await run(router, journal, feed, act, dead)
    assert len(feed.acked) == 6
    assert (summary.decisions, summary.dead_letters, summary.refused) == (6, 0, {"act": 1})
    (letter,) = dead.received
    assert letter.payload["reason"] == "no such order"
    assert letter.payload["delivery"]["id"] == "m3"
    assert set(act.effects) == {delivery.key for delivery in act.received}
    assert journal.pending("demo") == []


async def test_a_required_sink_that_fails_for_a_while_holds_the_acknowledgement_back(router: Router, journal: Journal) -> None:
    failures = [Unavailable("away")] * 6

    def fail(_: Delivery) -> None:
        if failures:
            raise failures.pop()

    feed, act = source([message(number) for number in range(5)]), sink(fault=fail)
    summary = await run(router, journal, feed, act)
    assert failures == []
    assert summary.retries == {"act": 6}
    assert len(feed.acked) == 5


async def test_an_optional_sink_that_fails_never_holds_anything_back(router: Router, journal: Journal) -> None:
    def fail(_: Delivery) -> None:
        raise Unavailable("away")

    def broken(_: Delivery) -> None:
        raise ZeroDivisionError("a defect of the sink")

    for number, fault in enumerate((fail, broken)):
        feed, act = source([message(100 * number + place) for place in range(20)]), sink(fault=fault)
        optional = {"act": {"stdout": {}, "required": False}}
        summary = await run(router, journal, feed, act, sinks=optional)
        assert len(feed.acked) == 20
        assert summary.failed == {"act": 20}
        assert journal.pending("demo") == []


async def test_what_was_decided_before_a_crash_is_delivered_after_it(router: Router, journal: Journal) -> None:
    def never(_: Delivery) -> None:
        raise Unavailable("away")

    ending = StopAfter(EventKind.DECIDED, 5)
    feed = source([message(number) for number in range(5)], live=True)
    broken = await run(router, journal, feed, sink(fault=never), stop=ending.stop, on_event=ending, drain_s=0.2)
    assert (broken.decisions, broken.acknowledged) == (5, 0)
    assert feed.acked == []
    act = sink()
    ending = StopAfter(EventKind.ACKNOWLEDGED, 5)
    summary = await run(router, journal, feed, act, stop=ending.stop, on_event=ending)
    assert (summary.recovered, summary.redelivered, summary.decisions) == (5, 5, 0)
    assert len(act.received) == len(act.effects) == 5
    assert len(feed.acked) == 5


async def test_a_model_that_is_away_for_a_while_makes_messages_wait(router: Router, journal: Journal) -> None:
    class Away:
        """A router whose model is not there for the first calls."""

        calls = 0

        async def predict_many(self, ref: str, samples: Sequence[Any], *, source: str = "") -> Any:
            self.calls += 1
            if self.calls <= 3:
                raise Unavailable("loading")
            return await router.predict_many(ref, samples, source=source)

        def bundle(self, ref: str) -> Any:
            return router.bundle(ref)

    away, feed, act = Away(), source([message(1), message(2)]), sink()
    summary = await run(away, journal, feed, act)  # type: ignore[arg-type]  # keeps the contract Predicts
    assert away.calls == 4
    assert (summary.decisions, summary.dead_letters) == (2, 0)


async def test_a_journal_that_takes_nothing_for_a_while_holds_everything_back(router: Router, tmp_path: Path) -> None:
    class Full(Journal):
        """A journal on a disk that is full for the first writes."""

        refusals = 3

        def write(self, *known: Any, **more: Any) -> None:
            if self.refusals:
                self.refusals -= 1
                assert act.received == [], "a sink was tried before the decision was on disk"
                raise StorageError("the disk is full")
            super().write(*known, **more)

    rules = [{"name": "some", "budget": "3/1h", "send": ["act"]}]
    feed, act = source([message(number, device="d") for number in range(5)]), sink()
    with Full(tmp_path / "full.db") as full:
        summary = await run(router, full, feed, act, rules=rules)
    assert full.refusals == 0
    assert summary.decisions == 5
    assert len(act.received) == 3


async def test_a_stop_finishes_what_was_read(router: Router, journal: Journal) -> None:
    feed, act = source([message(number) for number in range(200)], live=True), sink()
    ending = StopAfter(EventKind.DECIDED, 1)
    summary = await run(router, journal, feed, act, stop=ending.stop, on_event=ending)
    assert summary.acknowledged == summary.messages == len(feed.acked) > 0


async def test_with_match_all_each_rule_acts_with_a_key_of_its_own(router: Router, journal: Journal) -> None:
    rules = [{"name": "one", "send": ["act"]}, {"name": "two", "send": ["act"]}]
    act = sink()
    summary = await run(router, journal, source([message(1)]), act, rules=rules, match="all")
    assert summary.rules == {"one,two": 1}
    assert len(act.effects) == 2
    assert journal.pending("demo") == []


async def test_events_tell_every_step_and_the_ledger_has_the_decisions(router: Router, journal: Journal, tmp_path: Path) -> None:
    events: list[PipelineEvent] = []
    with Ledger(tmp_path / "ledger.db") as ledger:
        await run(router, journal, source([message(1), b"{"]), sink(), on_event=events.append, ledger=ledger)
        ledger.flush()
        assert ledger.stats().decisions == 1
    kinds = [str(event.kind) for event in events]
    assert sorted(kinds) == ["acknowledged", "acknowledged", "decided", "delivered", "delivered", "rejected"]
    decided = next(event for event in events if event.kind == "decided")
    assert (decided.label, decided.rule, decided.sinks, decided.fields["order"]) == ("hot", "act", ("act",), "o1")
    assert decided.latency_s > 0


async def test_a_file_that_names_what_the_model_does_not_have_is_refused_at_the_start(router: Router, journal: Journal) -> None:
    rules = [{"name": "act", "label": "boiling", "send": ["act"]}]
    with pytest.raises(InvalidConfig, match="the model has no label 'boiling'; known: cold, warm, hot"):
        await run(router, journal, source([]), sink(), rules=rules)


async def test_a_file_source_goes_on_where_it_stopped(router: Router, journal: Journal, tmp_path: Path) -> None:
    path = tmp_path / "feed.jsonl"
    sources = {"feed": {"file": {"path": str(path)}}}
    no_ids = {"json": {"key": "$.device", "fields": {"values": "$.values", "order": "$.order"}}}
    sinks = {"act": {"stdout": {"json": {"order": "=order"}}}}
    sections = pipeline(sources=sources, message=no_ids, sinks=sinks)
    orders: list[str] = []
    for start in (0, 300):
        with path.open("ab") as file:
            file.writelines(message(number) + b"\n" for number in range(start, start + 300))
        act = sink()
        summary = await sections.run(router=router, journal=journal, sinks={"act": act})
        orders += [delivery.payload["order"] for delivery in act.received]
        assert summary.decisions == 300
    assert orders == [f"o{number}" for number in range(600)]


async def test_a_file_that_was_read_to_its_end_is_not_read_again(router: Router, journal: Journal, tmp_path: Path) -> None:
    path = tmp_path / "feed.jsonl"
    path.write_bytes(b"\n".join(message(number) for number in range(100)) + b"\n")
    parts = {"sources": {"feed": {"file": {"path": str(path)}}}}
    first = await pipeline(**parts).run(router=router, journal=journal, sinks={"act": sink()})
    again = await pipeline(**parts).run(router=router, journal=journal, sinks={"act": sink()})
    assert (first.messages, first.decisions) == (100, 100)
    assert again.messages == 0
