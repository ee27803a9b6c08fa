"""History decided again: with the same rules nothing differs, and with others exactly what a real run would decide."""

from __future__ import annotations

import asyncio
import json
import random
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from inferloop.cli.pipeline import command
from inferloop.data.journal import Journal
from inferloop.data.ledger.ledger import Ledger
from inferloop.data.ledger.records import DecidedRow, DecisionRecord, FeedbackRecord
from inferloop.data.ledger.tables import SCHEMA
from inferloop.prediction.predictor import Predictor
from inferloop.prediction.router import Router
from inferloop.registry.registry import Registry
from inferloop.streams.contexts import SinkContext, SourceContext
from inferloop.streams.pipeline import Pipeline
from inferloop.streams.replay_report import Tally
from inferloop.streams.replaying import Redecided, redecide
from inferloop.streams.sinks.memory import MemorySink
from inferloop.streams.sources.memory import MemorySource
from support.pipelines import content, message, numbers_registry, save

COUNT = 300
RULES = [
    {"name": "often", "label": "hot", "above": 0.4, "vote": {"of": 3, "need": 2}, "cooldown": "2s", "send": ["act"]},
    {"name": "once", "label": "cold", "above": 0.3, "when": "total < 80.0", "once_per": "order", "send": ["act"]},
    {"name": "rest", "below": 0.5, "send": ["act"]},
]
OTHERS = [
    {"name": "often", "label": "hot", "above": 0.6, "vote": {"of": 4, "need": 2}, "cooldown": "1s", "send": ["act"]},
    {"name": "once", "label": "cold", "above": 0.2, "when": "total < 60.0", "once_per": "order", "send": ["act"]},
    {"name": "rest", "below": 0.6, "send": []},
]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two models that disagree now and then."""
    monkeypatch.setenv("INFERLOOP_HOME", str(tmp_path))
    with numbers_registry(tmp_path, (0.1, 0.0, 0.2), (0.9, 0.1, -0.3)):
        return tmp_path


def payloads() -> list[bytes]:
    dice = random.Random(5)
    start = time.time() - 3600
    return [
        message(
            number,
            device=f"d{number % 5}",
            at=start + number,
            values=[dice.uniform(-2, 2) for _ in range(4)],
            order=f"o{dice.randrange(40)}",
            total=dice.choice([20.0, 70.0, 100.0, None]),
        )
        for number in range(COUNT)
    ]


async def run(
    folder: Path, name: str, sent: Sequence[bytes], *, ref: str, ledger: Ledger | None, **changes: Any
) -> dict[str, Any]:
    """A real run; the decisions in the journal by message."""
    pipeline = Pipeline.of(content(**{"rules": RULES, "model": {"ref": ref}, **changes}))
    sinks = {part: MemorySink(SinkContext("demo", part)) for part in ("act", "dead_letter")}
    sources = {"feed": MemorySource(sent, SourceContext("demo", "feed"))}
    with Registry(folder / "registry") as registry, Journal(folder / f"{name}.db") as journal:
        async with Router(registry, ledger=ledger) as router:
            await router.open([ref])
            await pipeline.run(router=router, journal=journal, ledger=ledger, sources=sources, sinks=sinks)
        return journal.find("demo", [f"m{number}" for number in range(COUNT)])


async def again(ledger: Ledger, rules: Sequence[Any], model: Predictor | None = None) -> list[Redecided]:
    spec = Pipeline.of(content(rules=rules)).spec
    return [one async for one in redecide(spec, ledger.decided("demo", inputs=True), model=model)]


def agree(found: Sequence[Redecided], wanted: dict[str, Any]) -> None:
    assert len(found) == COUNT
    for one in found:
        decision = wanted[one.row.decision.message_id]
        sinks = tuple(delivery.sink for delivery in decision.deliveries)
        assert (one.rule, one.reason, one.sinks) == (decision.rule, decision.reason, sinks), one


async def test_a_replay_decides_what_a_real_run_would(home: Path) -> None:
    sent = payloads()
    with Ledger(home / "ledger.db") as ledger:
        wanted = await run(home, "first", sent, ref="numbers:1", ledger=ledger)
        ledger.flush()
        same = await again(ledger, RULES)
        assert not [one for one in same if one.differs or one.lacks]
        agree(same, wanted)
        with_rules = await again(ledger, OTHERS)
        agree(with_rules, await run(home, "second", sent, ref="numbers:1", ledger=None, rules=OTHERS))
        assert COUNT / 10 < sum(one.differs for one in with_rules) < COUNT
        with Registry(home / "registry") as registry:
            async with Predictor.load(registry.resolve("numbers:2")) as model:
                with_model = await again(ledger, OTHERS, model)
        agree(with_model, await run(home, "third", sent, ref="numbers:2", ledger=None, rules=OTHERS))
        assert [one.after for one in with_model] != [one.after for one in with_rules]


async def test_the_number_of_a_model_without_labels_is_taken_from_the_decision() -> None:
    def row(number: int, score: float) -> DecidedRow:
        record = DecisionRecord(f"m{number}", f"p{number}", "demo", "", (), float(number), "no_rule", "k", float(number), score)
        return DecidedRow(record, scores={})

    spec = Pipeline.of(content(rules=[{"name": "high", "above": 3.0, "clear_below": 2.0, "send": ["act"]}])).spec
    history = [row(number, score) for number, score in enumerate((1.0, 3.5, 3.6, 1.5, 4.0))]
    assert [one.after async for one in redecide(spec, history)] == [
        "no_rule", "high -> act", "suppressed: clear_below", "no_rule", "high -> act",
    ]  # fmt: skip


def test_a_decision_of_several_rules_is_priced_once() -> None:
    rules = [{"name": name, "label": name, "send": ["act"]} for name in ("hot", "cold")]
    spec = Pipeline.of(content(rules=rules, match="all")).spec
    tally = Tally(spec, spec, right=5.0, wrong=-40.0)
    for truth in ("hot", "cold", "warm", ""):
        row = DecidedRow(DecisionRecord("m", "p", "demo", "hot,cold", ("act",), 0.0), scores={}, truth=truth)
        tally.add(Redecided(row, "hot", "", ("act",)))
    figures = tally.report("").figures
    assert (figures["value_before"], figures["value_after"], figures["with_truth"]) == (5 + 5 - 40, 5 - 40 - 40, 3)


async def test_what_is_no_longer_kept_stays_as_it_was_and_is_told(home: Path) -> None:
    with Ledger(home / "ledger.db") as ledger:
        await run(home, "first", payloads(), ref="numbers:1", ledger=ledger)
        ledger.flush()
        with sqlite3.connect(home / "ledger.db") as connection:
            connection.execute("DELETE FROM inputs WHERE row % 3 = 0")
            connection.execute("DELETE FROM predictions WHERE row % 10 = 1")
        found = await again(ledger, OTHERS)
        assert sum("no longer in the ledger" in one.lacks for one in found) == COUNT / 10
        with Registry(home / "registry") as registry:
            async with Predictor.load(registry.resolve("numbers:2")) as model:
                found = await again(ledger, OTHERS, model)
        assert COUNT / 3 <= sum(bool(one.lacks) for one in found) <= COUNT / 2
        assert all(one.before == one.after for one in found if one.lacks)


async def test_the_command_tells_what_would_differ_and_what_it_is_worth(home: Path) -> None:
    with Ledger(home / "ledger.db") as ledger:
        await run(home, "first", payloads(), ref="numbers:1", ledger=ledger)
        ledger.flush()
        rows = list(ledger.decided("demo"))
        truths = [FeedbackRecord(row.decision.prediction_id, "hot", "me", time.time()) for row in rows]
        assert ledger.feedback_many(truths) == []
    file = save(home / "demo.yaml", content(rules=RULES))
    other = save(home / "other.yaml", content(rules=OTHERS))
    options = ["--rules", str(other), "--model", "numbers:2", "--right", "5", "--wrong", "-40", "--report", str(home / "r.html")]
    result = await invoked("replay", str(file), *options)
    assert result.exit_code == 0, result.output
    assert "what would differ" in result.output
    assert "gain" in result.output
    assert "what would differ" in (home / "r.html").read_text()
    report = json.loads((await invoked("replay", str(file), *options, "--json")).output)
    figures = report["figures"]
    assert figures["decisions"] == figures["same"] + figures["differ"] == figures["with_truth"] == COUNT
    acted = {"often": 5.0, "once": -40.0, "rest": 0.0, "": 0.0}
    assert figures["value_before"] == sum(acted[row.decision.rule] for row in rows if row.decision.sinks)
    assert figures["gain"] == pytest.approx(figures["value_after"] - figures["value_before"])
    recent = json.loads((await invoked("replay", str(file), "--window", "1h", "--json")).output)
    assert (recent["figures"]["decisions"], recent["figures"]["differ"]) == (COUNT, 0)


async def invoked(*arguments: str) -> Result:
    """The command in a thread: it runs an event loop of its own."""
    return await asyncio.to_thread(CliRunner().invoke, command, arguments)


def test_a_ledger_of_an_older_version_is_read(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "ledger.db") as connection:
        for statement in SCHEMA.migrations[0]:
            connection.execute(statement)
        connection.execute("INSERT INTO decisions VALUES (1, 'm1', 'p1', 'demo', 'act', '[\"act\"]', 5.0)")
        connection.execute(f"PRAGMA application_id={SCHEMA.application_id}")
        connection.execute("PRAGMA user_version=1")
    with Ledger(tmp_path / "ledger.db") as ledger:
        (row,) = ledger.decided("demo")
    assert (row.decision.rule, row.decision.sinks, row.decision.event_time, row.scores) == ("act", ("act",), None, None)


async def test_erasing_a_key_takes_its_decisions_without_a_prediction_too(home: Path) -> None:
    with Ledger(home / "ledger.db") as ledger:
        stale = {"model": {"ref": "numbers:1", "max_age": "1s"}}
        await run(home, "first", payloads(), ref="numbers:1", ledger=ledger, **stale)
        ledger.flush()
        assert {row.decision.reason for row in ledger.decided("demo")} == {"stale"}
        assert ledger.erase("d1").decisions == COUNT / 5
        assert all(row.decision.key != "d1" for row in ledger.decided("demo"))
