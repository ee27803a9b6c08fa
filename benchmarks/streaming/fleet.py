"""A fleet of virtual endpoints over MQTT that behaves as fleets do, while the pipeline is killed now and then.

The endpoints share a few connections, as behind gateways; a topic is theirs alone.
"""

from __future__ import annotations

import contextlib
import json
import random
import sqlite3
import subprocess
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from harness import tool
from streaming import rates, stage
from support.broker import Mosquitto, Publisher

ENDPOINTS = 10_000
GATEWAYS = 10
PER_S = 1000
KILLS = 3
TOPIC = "fleet/+/values"


@dataclass
class Told:
    """What the fleet sent, by message id; poison by its bytes."""

    ids: Counter[str] = field(default_factory=Counter)
    poison: set[bytes] = field(default_factory=set)
    late: int = 0
    skewed: int = 0


def measured(seconds: float = 600.0) -> dict[str, float]:
    """What was sent, arrived, was decided, acted and became a dead letter."""
    with rates.world() as folder:
        broker = Mosquitto(folder / "broker")
        broker.subscribe_for(stage.CLIENT, TOPIC)
        run = _Run(folder, broker)
        try:
            told = _send(broker, seconds, run)
            expected = len(told.ids) + len(told.poison)
            deadline = time.monotonic() + 120
            while _count(folder / "journal.db", "decisions") < expected and time.monotonic() < deadline:
                time.sleep(0.2)
            messages = run.end()
        finally:
            broker.stop()
        return _table(folder, told, messages, run.kills)


class _Run:
    """`inferloop run`, killed and started again."""

    def __init__(self, folder: Path, broker: Mosquitto) -> None:
        self._folder = folder
        path = stage.pipeline(folder, stage.mqtt(broker.url), acts=True)
        content = yaml.safe_load(path.read_text())
        content["sources"]["plant"]["mqtt"]["topics"] = [TOPIC]
        row = {"id": "=id", "device": "=key", "score": "=score"}
        content["sinks"] = {"out": {"sqlite": {"path": str(folder / "acts.db"), "table": "acts", "row": row}}}
        content["dead_letter"] = {"sqlite": {"path": str(folder / "letters.db"), "table": "letters"}}
        path.write_text(yaml.safe_dump(content, sort_keys=False))
        self._command = [tool("inferloop"), "run", str(path), "--json", "--drain", "60s"]
        self.kills = 0
        self._start()

    def _start(self) -> None:
        with (self._folder / "run.log").open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, stderr=log)

    def kill(self) -> None:
        """In the midst of the stream; starts it again at once."""
        if self._process.poll() is not None:
            raise RuntimeError("the pipeline ended by itself")
        self._process.kill()
        self._process.communicate()
        self.kills += 1
        self._start()

    def end(self) -> int:
        """SIGTERM; messages of the last run."""
        self._process.terminate()
        said, _ = self._process.communicate(timeout=120)
        return int(json.loads(said)["messages"])


class _Fleet:
    """Endpoints that drop out and hand in late what they gathered, have wrong clocks, repeat themselves, and send poison."""

    def __init__(self, broker: Mosquitto) -> None:
        self._dice = random.Random(11)
        self._gateways = [Publisher(broker.port) for _ in range(GATEWAYS)]
        self._values = [json.loads(payload)["values"] for payload in stage.messages(500)]
        wrong = self._dice.sample(range(ENDPOINTS), ENDPOINTS // 20)
        self._skew_s = {endpoint: self._dice.choice((-86_400.0, -90.0, 45.0, 86_400.0)) for endpoint in wrong}
        self._away: dict[int, list[bytes]] = {}
        self.told = Told()

    def tick(self, number: int) -> None:
        """One endpoint has something to say."""
        endpoint = self._dice.randrange(ENDPOINTS)
        if self._dice.random() < 0.005:
            poison = f"{{broken {number}".encode()
            self.told.poison.add(poison)
            self._publish(endpoint, poison)
            return
        identity = f"e{endpoint}-{number}"
        payload = self._payload(endpoint, identity, number)
        self.told.ids[identity] += 1
        if endpoint in self._away or self._dice.random() < 0.02:
            self._gather(endpoint, payload)
            return
        self._publish(endpoint, payload)
        if self._dice.random() < 0.01:
            self.told.ids[identity] += 1
            self._publish(endpoint, payload)

    def end(self) -> None:
        """Everybody comes back; returns when the broker has everything."""
        for endpoint in list(self._away):
            self._return(endpoint)
        for gateway in self._gateways:
            gateway.finish()
            gateway.close()

    def is_burst(self) -> bool:
        """Now and then many speak at once."""
        return self._dice.random() < 0.002

    def _payload(self, endpoint: int, identity: str, number: int) -> bytes:
        skew_s = self._skew_s.get(endpoint, 0.0)
        self.told.skewed += skew_s != 0.0
        values = self._values[number % len(self._values)]
        return json.dumps({"id": identity, "device": f"e{endpoint}", "at": time.time() + skew_s, "values": values}).encode()

    def _gather(self, endpoint: int, payload: bytes) -> None:
        self._away.setdefault(endpoint, []).append(payload)
        if len(self._away[endpoint]) > self._dice.randrange(6):
            self._return(endpoint)

    def _return(self, endpoint: int) -> None:
        for payload in self._away.pop(endpoint):
            self._publish(endpoint, payload)
            self.told.late += 1

    def _publish(self, endpoint: int, payload: bytes) -> None:
        self._gateways[endpoint % GATEWAYS].send(f"fleet/e{endpoint}/values", payload)


def _send(broker: Mosquitto, seconds: float, run: _Run) -> Told:
    """At a steady rate with bursts, with kills of the pipeline at even times."""
    fleet = _Fleet(broker)
    kills = [seconds * (number + 1) / (KILLS + 1) for number in range(KILLS)]
    started, behind_s = time.perf_counter(), 0.0
    for number in range(int(seconds * PER_S)):
        if fleet.is_burst():
            behind_s = 0.5  # nobody speaks for a while, then all of them
        at = time.perf_counter() - started
        wait_s = number / PER_S - at + behind_s
        if wait_s > 0.002:
            time.sleep(wait_s)
            behind_s = 0.0
        if kills and at > kills[0]:
            kills.pop(0)
            run.kill()
        fleet.tick(number)
    fleet.end()
    return fleet.told


def _table(folder: Path, told: Told, last_run: int, kills: int) -> dict[str, float]:
    decided = dict(_rows(folder / "journal.db", "SELECT message_id, count(*) FROM decisions GROUP BY message_id"))
    wanted = {id_ for (id_,) in _rows(folder / "journal.db", "SELECT message_id FROM decisions WHERE rule != '' AND reason = ''")}
    acted = dict(_rows(folder / "acts.db", "SELECT id, count(*) FROM acts GROUP BY id"))
    letters = [json.loads(body)["payload"].encode() for (body,) in _rows(folder / "letters.db", "SELECT payload FROM letters")]
    lost = len(set(told.ids) - set(decided)) + len(told.poison - set(letters)) + len(wanted - set(acted))
    twice = sum(count - 1 for count in acted.values()) + len(letters) - len(set(letters)) + len(set(acted) - wanted)
    return {
        "fleet_sent": sum(told.ids.values()) + len(told.poison),
        "fleet_repeated": sum(count - 1 for count in told.ids.values()),
        "fleet_late": told.late,
        "fleet_skewed": told.skewed,
        "fleet_decided": len(set(told.ids) & set(decided)),
        "fleet_acted": len(acted),
        "fleet_dead_letters": len(letters),
        "fleet_kills": kills,
        "fleet_lost": lost,
        "fleet_double_decisions": sum(count - 1 for count in decided.values()),
        "fleet_double_effects": twice,
        "fleet_last_run": last_run,
    }


def _rows(path: Path, sql: str) -> list[tuple[str, ...]]:
    with contextlib.closing(sqlite3.connect(path, timeout=60)) as database:
        return database.execute(sql).fetchall()


def _count(path: Path, table: str) -> int:
    if not path.exists():
        return 0
    ((count,),) = _rows(path, f"SELECT count(*) FROM {table}")
    return int(count)
