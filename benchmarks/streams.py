"""Streams: what survives a simulated world of failures, and how fast messages become decisions.

`python benchmarks/streams.py [PART ...]` measures some parts only: sim, speed, paced, outage, away, fleet, cel, replay.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import timeit
from pathlib import Path
from statistics import median

from harness import ROOT, Row, judged, tool, write
from inferloop.streams.expressions import compile_expression

sys.path.insert(0, str(ROOT / "tests"))

from streaming import away, fleet, outage, rates, replay
from support.broker import Mosquitto

BENCH = "make bench-streams"
SEEDS = 10_000
GOALS = {"mqtt": ">= 10000", "nats": ">= 7000", "redis": ">= 7000", "kafka": ">= 25000"}

ORDERS = """
pipeline: orders
sources: {feed: {mqtt: {url: "mqtt://127.0.0.1:1883", topics: [orders], client_id: orders}}}
message:
  json:
    id: $.id
    key: $.customer
    time: $.at
    fields: {order: {path: $.order, type: string}, total: {path: $.total, type: number}}
model: {ref: "orders@champion"}
rules:
  - {name: vote, label: hot, above: 0.3, vote: {of: 4, need: 2}, cooldown: 1s, send: [act, tell]}
  - {name: once, label: cold, above: 0.5, once_per: order, send: [tell]}
  - {name: large, above: 0.8, when: "total > 0.0", send: [act]}
sinks:
  act: {sqlite: {path: act.db, table: acts, row: {id: "=id", order: "=order", label: "=label"}}}
  tell: {webhook: {url: "http://127.0.0.1:1/x", json: {id: "=id", score: "=score"}}}
"""


def main() -> None:
    parts = {
        "sim": simulation,
        "speed": speed,
        "paced": paced,
        "outage": uplink,
        "away": system,
        "fleet": endpoints,
        "cel": expressions,
        "replay": history,
    }
    rows = [row for name in sys.argv[1:] or parts for row in parts[name]()]
    write("streams", rows)
    sys.exit(0 if all(row.met is not False for row in rows) else 1)


def simulation() -> list[Row]:
    """`inferloop pipeline sim` as a user types it; one kind of problem a row."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "orders.yaml"
        file.write_text(ORDERS)
        command = [tool("inferloop"), "pipeline", "sim", str(file), "--seeds", str(SEEDS), "--json"]
        report = json.loads(subprocess.run(command, check=False, capture_output=True, text=True).stdout)
    found = [problem for problems in report["problems"].values() for problem in problems]
    decided_twice = sum(problem.startswith("decided twice") for problem in found)
    acted_twice = sum(problem.startswith(("one key", "delivered")) for problem in found) + report["counts"].get("twice", 0)
    return [
        judged("sim_seeds", report["seeds"], "seeds", goal=">= 10000", command=BENCH),
        judged("sim_s", round(report["seconds"], 1), "s", goal="<= 600", command=BENCH),
        judged("sim_lost", len(found) - decided_twice - acted_twice, "problems", goal="== 0", command=BENCH),
        judged("sim_double_decisions", decided_twice, "decisions", goal="== 0", command=BENCH),
        judged("sim_double_effects", acted_twice, "effects", goal="== 0", command=BENCH),
        judged("sim_kills", report["counts"]["kill"], "kills", goal="", command=BENCH),
        judged("sim_redelivered", report["counts"]["redelivered"], "messages", goal="", command=BENCH),
    ]


def speed() -> list[Row]:
    """15,000 messages that wait at a broker of our own, journal and ledger at their defaults; beside the client's bare loop."""
    with rates.world() as folder:
        found = {kind: rates.rates(kind, folder, broker) for kind, broker in rates.BROKERS.items()}
    rows: list[Row] = []
    costs: dict[str, list[float]] = {"ours": [], "quiet": []}
    for kind, results in found.items():
        per_s = {who: rates.BACKLOG / result["seconds"] for who, result in results.items()}
        peer = f"bare loop {per_s['bare']:.0f}"
        for who, all_costs in costs.items():
            all_costs.append(1 - per_s[who] / per_s["bare"])
        rows += [
            judged(f"{kind}_per_s", round(per_s["ours"]), "messages/s", goal=GOALS[kind], command=BENCH, peer=peer),
            judged(f"{kind}_bare_per_s", round(per_s["bare"]), "messages/s", goal="", command=BENCH),
            judged(
                f"{kind}_cpu_us", round(results["ours"]["cpu_s"] / rates.BACKLOG * 1e6, 1), "us/message", goal="", command=BENCH
            ),
            judged(f"{kind}_overhead", round(costs["ours"][-1], 3), "", goal="", command=BENCH, peer=peer),
        ]
    rss = max(results["ours"]["rss_mb"] for results in found.values())
    return [
        *rows,
        judged("overhead", round(max(costs["ours"]), 3), "", goal="<= 0.35", command=BENCH, peer="the worst of the four"),
        judged(
            "overhead_no_decisions",
            round(max(costs["quiet"]), 3),
            "",
            goal="<= 0.25",
            command=BENCH,
            peer="the worst of the four",
        ),
        judged("rss_mb", round(rss), "MB", goal="< 180", command=BENCH),
    ]


def paced() -> list[Row]:
    """1,000 messages a second over MQTT, and SIGTERM in the midst of them."""
    with rates.world() as folder:
        broker = Mosquitto(folder / "broker")
        try:
            delays = rates.paced(folder, broker)
            stopped_s = rates.drain_s(folder, broker)
        finally:
            broker.stop()
    return [
        judged("paced_p50_ms", round(delays["p50_ms"], 1), "ms", goal="<= 15", command=BENCH),
        judged("paced_p99_ms", round(delays["p99_ms"], 1), "ms", goal="<= 50", command=BENCH),
        judged("drain_s", round(stopped_s, 2), "s", goal="< 5", command=BENCH),
    ]


def uplink() -> list[Row]:
    """500 messages a second, and a minute without uplink: the outbox drains while live ones come."""
    found = outage.measured()
    return [
        judged("drain_x", round(found["drain_x"], 1), "x live rate", goal=">= 5", command=BENCH),
        judged("outage_waited", found["waited"], "deliveries", goal="", command=BENCH),
        judged("outage_lost", found["lost"], "messages", goal="== 0", command=BENCH),
        judged("outage_double_effects", found["double"], "messages", goal="== 0", command=BENCH),
        judged("outage_out_of_order", found["out_of_order"], "messages", goal="== 0", command=BENCH),
    ]


def system() -> list[Row]:
    """The system behind a webhook says 503 for a minute, and there is no outbox: what comes meanwhile waits at the broker."""
    found = away.measured()
    goals = {"away_lost": "== 0", "away_double_effects": "== 0", "away_rss_growth_mb": "< 20"}
    units = {"away_rss_growth_mb": "MB", "away_refused": "requests"}
    return [
        judged(name, value, units.get(name, "messages"), goal=goals.get(name, ""), command=BENCH) for name, value in found.items()
    ]


def endpoints() -> list[Row]:
    """10,000 virtual endpoints for ten minutes, with three kills of the pipeline."""
    found = fleet.measured()
    goals = {"fleet_lost": "== 0", "fleet_double_effects": "== 0", "fleet_double_decisions": "== 0"}
    return [judged(name, value, "messages", goal=goals.get(name, ""), command=BENCH) for name, value in found.items()]


def expressions() -> list[Row]:
    """A rule of three clauses on an event of six fields, compiled; the median of five times 20,000."""
    names = {"total": "number", "country": "string", "new": "bool", "score": "number", "label": "string", "age_s": "number"}
    rule = compile_expression("total < 100.0 && country == 'DE' && score > 0.5", names, boolean=True)
    event = {"total": 40.0, "country": "DE", "new": True, "score": 0.9, "label": "hot", "age_s": 1.0}
    taken = [timeit.timeit(lambda: rule.holds(event), number=20_000) / 20_000 * 1e6 for _ in range(5)]
    return [judged("cel_us", round(median(taken), 1), "us", goal="<= 25", command=BENCH)]


def history() -> list[Row]:
    """A million decisions under another model and other rules, by the command; and row by row, without any batch."""
    taken_s, differing, wrong = replay.measured()
    return [
        judged("replay_s", round(taken_s, 1), "s", goal="<= 60", command=BENCH),
        judged("replay_differing", differing, "decisions", goal="", command=BENCH),
        judged("replay_wrong_rows", wrong, "decisions", goal="== 0", command=BENCH, peer="a brute-force run of every row"),
    ]


if __name__ == "__main__":
    main()
