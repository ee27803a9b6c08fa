"""`inferloop run` is killed in mid-stream while model and rules change: nothing is lost, nothing is done twice."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.broker import Mosquitto
from support.pipelines import COLD, HOT, content, message, numbers_registry, save
from support.refund_service import Refunds, refund_service
from support.runs import Run, decided, wait_until

MESSAGES = 3000
POISON_EVERY = 100


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    broker = Mosquitto(tmp_path / "broker")
    yield broker
    broker.stop()


@pytest.fixture
def service() -> Iterator[Refunds]:
    with refund_service() as refunds:
        yield refunds


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Version 1 and 2 always answer hot, version 3 always cold."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("INFERLOOP_HOME", str(home))
    numbers_registry(home, HOT, (0.0, 0.0, 20.0), COLD).close()
    return home


def refunds_file(path: Path, broker: Mosquitto, service: Refunds, *, send: tuple[str, ...] = ("refund",)) -> Path:
    mqtt = {"url": broker.url, "topics": ["shop/chat"], "qos": 1, "client_id": "refunds", "in_flight": 128}
    sections = content(
        pipeline="refunds",
        sources={"chat": {"mqtt": mqtt}},
        model={"ref": "numbers@champion", "batch": {"max": 32}},
        rules=[
            {"name": "refund", "label": "hot", "above": 0.5, "when": "total < 100.0", "once_per": "order", "send": list(send)},
            {"name": "other", "send": ["audit"]},
        ],
        sinks={
            "refund": {"webhook": {"url": service.refund_url, "json": {"order": "=order", "reason": "=label"}, "timeout": "60s"}},
            "audit": {"sqlite": {"path": str(path.parent / "audit.db"), "table": "audit", "row": {"id": "=id"}}},
        },
        dead_letter={"file": {"path": str(path.parent / "rejected.jsonl")}},
    )
    return save(path, sections)


def shop_messages(count: int) -> list[bytes]:
    """Every 100th is poison, every 50th beside it repeats the order of the message before."""
    messages = []
    for number in range(count):
        if number % POISON_EVERY == 0:
            messages.append(f"poison {number} {{".encode())
        elif number % 50 == 25:
            messages.append(message(number, order=f"o{number - 1}"))
        else:
            messages.append(message(number))
    return messages


def test_three_kills_a_promotion_and_an_edited_rule_lose_nothing_and_do_nothing_twice(
    tmp_path: Path, home: Path, broker: Mosquitto, service: Refunds
) -> None:
    file = refunds_file(tmp_path / "refunds.yaml", broker, service)
    broker.subscribe_for("refunds", "shop/chat")
    messages = shop_messages(MESSAGES)
    third = MESSAGES // 3

    def kill_at(effects: int) -> None:
        """Kill it while it waits for the answer to one refund more; that one is issued later, and nobody hears of it."""
        service.post(f"/hold/{effects}")
        run = Run(file)
        wait_until(lambda: service.is_held_at(effects), run)
        run.kill()

    broker.publish("shop/chat", messages[: 2 * third])
    kill_at(200)
    with_registry(home, version=2)
    kill_at(500)
    refunds_file(file, broker, service, send=("refund", "audit"))
    before_edit = {id_ for id_, rule, _ in decided(home) if rule == "refund"}
    broker.publish("shop/chat", messages[2 * third :])
    kill_at(1000)
    with_registry(home, version=3)  # from here on the model says cold: what was not decided yet is not refunded
    service.post(f"/hold/{MESSAGES}")
    run = Run(file)
    wait_until(lambda: len(decided(home)) == MESSAGES and service.stats()["effects"] == refunds_in(home), run)
    run.terminate()
    summary = run.end()

    poison = {number for number in range(MESSAGES) if number % POISON_EVERY == 0}
    decisions = decided(home)
    ids = Counter(id_ for id_, _, _ in decisions)
    rejected = [json.loads(line) for line in (tmp_path / "rejected.jsonl").read_text().splitlines()]
    stats = service.stats()
    assert set(ids) >= {f"m{number}" for number in range(MESSAGES) if number not in poison}
    assert set(ids.values()) == {1}
    assert len(ids) == MESSAGES
    assert {entry["payload"] for entry in rejected} == {f"poison {number} {{" for number in poison}
    assert stats["effects"] == len(set(stats["orders"])) == refunds_in(home)
    assert 1000 < stats["effects"] < MESSAGES - len(poison), "both models decided"
    assert any(reason == "suppressed: once_per" for _, _, reason in decisions)
    audit = audited(tmp_path)
    assert not audit & before_edit, "what was decided before the edit was decided again"
    assert audit & {id_ for id_, rule, _ in decisions if rule == "refund"}, "the edit came too late"
    assert {id_ for id_, rule, _ in decisions if rule == "other"} <= audit
    assert summary["decisions"] > 0
    assert stats["requests"] == stats["effects"] + stats["repetitions"]
    assert stats["repetitions"] >= 3, "what each kill caught on its way was sent once more"


def test_sigterm_under_load_finishes_what_was_read_and_repeats_nothing(
    tmp_path: Path, home: Path, broker: Mosquitto, service: Refunds
) -> None:
    file = refunds_file(tmp_path / "refunds.yaml", broker, service)
    broker.subscribe_for("refunds", "shop/chat")
    count = 6000
    broker.publish("shop/chat", [message(number) for number in range(count)])
    service.post("/hold/100")
    run = Run(file)
    wait_until(lambda: service.is_held_at(100), run)
    run.terminate()
    service.post(f"/hold/{count}")
    summary = run.end()
    before = service.stats()
    assert 100 < before["effects"] < count, "it was not under load"
    assert summary["messages"] == summary["decisions"] == summary["acknowledged"] == before["effects"]
    again = Run(file)
    wait_until(lambda: service.stats()["effects"] == count, again)
    again.terminate()
    again.end()
    assert service.stats()["repetitions"] == 0


def test_a_sink_that_answers_503_again_and_again_gets_every_effect_once_in_the_end(
    tmp_path: Path, home: Path, broker: Mosquitto, service: Refunds
) -> None:
    file = refunds_file(tmp_path / "refunds.yaml", broker, service)
    broker.subscribe_for("refunds", "shop/chat")
    broker.publish("shop/chat", [message(number) for number in range(600)])
    service.post("/hold/50")
    run = Run(file)
    wait_until(lambda: service.is_held_at(50), run)
    service.post("/fail/7")
    service.post("/hold/600")
    wait_until(lambda: service.stats()["effects"] == 600, run)
    run.terminate()
    summary = run.end()
    assert summary["retries"]["refund"] == service.stats()["refused"] == 7
    assert service.stats()["repetitions"] == 0


def test_a_broker_that_restarts_in_mid_stream_loses_nothing(
    tmp_path: Path, home: Path, broker: Mosquitto, service: Refunds
) -> None:
    file = refunds_file(tmp_path / "refunds.yaml", broker, service)
    broker.subscribe_for("refunds", "shop/chat")
    broker.publish("shop/chat", [message(number) for number in range(1000)])
    service.post("/hold/100")
    run = Run(file)
    wait_until(lambda: service.is_held_at(100), run)
    broker.stop()
    service.post("/hold/1000")  # it finishes what it has read, and has room to notice
    wait_until(lambda: "broker not there" in run.errors.read_text(), run)
    assert service.stats()["effects"] < 1000, "the fault came too late"
    broker.start()
    wait_until(lambda: service.stats()["effects"] == 1000, run)
    run.terminate()
    summary = run.end()
    assert sorted(service.stats()["orders"]) == sorted(f"o{number}" for number in range(1000))
    assert summary["decisions"] == 1000
    assert summary["messages"] == 1000 + summary["redelivered"]


def with_registry(home: Path, *, version: int) -> None:
    from inferloop.registry.registry import Registry

    with Registry(home / "registry") as registry:
        registry.promote("numbers", version, by="test")


def refunds_in(home: Path) -> int:
    """Refunds that the journal decided."""
    return sum(rule == "refund" and not reason for _, rule, reason in decided(home))


def audited(folder: Path) -> set[str]:
    with sqlite3.connect(folder / "audit.db", timeout=30) as database:
        rows = {id_ for (id_,) in database.execute("SELECT id FROM audit")}
    database.close()
    return rows
