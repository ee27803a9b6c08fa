"""Streams: what survives a simulated world of failures, and how fast messages become decisions.

`python benchmarks/streams.py [PART ...]` measures some parts only: sim.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from harness import Row, judged, tool, write

BENCH = "make bench-streams"
SEEDS = 10_000

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
    parts = {"sim": simulation}
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


if __name__ == "__main__":
    main()
