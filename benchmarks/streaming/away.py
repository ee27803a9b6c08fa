"""The system that a pipeline acts on says 503 for a while: what is lost, what acts twice, and how does memory grow?"""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

from harness import tool
from streaming import rates, stage
from support.stream_worlds.nats import Nats

PER_S = 200
LIVE_S = 10.0


def measured(outage_s: float = 60.0) -> dict[str, float]:
    """Megabytes that the process grew by, from its steady state to the end of the outage; messages lost and doubled."""
    with rates.world() as folder:
        broker, shop = Nats(folder / "broker"), Shop()
        command = [tool("inferloop"), "run", str(_pipeline(folder, broker, shop)), "--json"]
        with (folder / "run.log").open("ab") as log:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log)
        try:
            sent = _publish(broker, 0, LIVE_S)
            steady = resident_mb(process.pid)
            shop.answer = 503
            sent = _publish(broker, sent, outage_s)
            grown, refused, acted = resident_mb(process.pid), shop.refused, len(shop.acted)
            shop.answer = 200
            deadline = time.monotonic() + 300
            while len(shop.acted) < sent and time.monotonic() < deadline:
                time.sleep(0.1)
        finally:
            process.terminate()
            process.communicate(timeout=60)
            broker.stop()
            shop.stop()
    if not refused or acted >= sent:
        raise RuntimeError(f"{refused} requests were refused, {acted} of {sent} had acted: the outage did not hit")
    return {
        "away_waited": sent - acted,
        "away_refused": refused,
        "away_rss_growth_mb": round(grown - steady, 1),
        "away_lost": sent - len(shop.acted),
        "away_double_effects": sum(count - 1 for count in shop.acted.values()),
    }


class Shop:
    """Takes each idempotency key once, or answers what it is told to."""

    def __init__(self) -> None:
        self.answer = 200
        self.refused = 0
        self.acted: Counter[str] = Counter()
        shop = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                shop.took(self.headers["Idempotency-Key"])
                self.send_response(shop.answer)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Says nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/act"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def took(self, key: str) -> None:
        """A request came."""
        if self.answer == 200:
            self.acted[key] += 1
        else:
            self.refused += 1

    def stop(self) -> None:
        """Take no more."""
        self._server.shutdown()
        self._server.server_close()


def resident_mb(pid: int) -> float:
    """Resident memory of a process now."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"process {pid} has no resident memory")


def _publish(broker: Nats, first: int, seconds: float) -> int:
    """Messages at the steady rate; returns the number of the next one."""
    payloads = [json.loads(payload) for payload in stage.messages(1000)]
    number, started = first, time.perf_counter()
    while (passed := time.perf_counter() - started) < seconds:
        wanted = first + int(passed * PER_S)
        fresh = [json.dumps({**payloads[n % 1000], "id": f"m{n}", "at": time.time()}).encode() for n in range(number, wanted)]
        if fresh:
            broker.put(fresh)
        number = max(number, wanted)
        time.sleep(0.25)
    return number


def _pipeline(folder: Path, broker: Nats, shop: Shop) -> Path:
    path = stage.pipeline(folder, broker.source(in_flight=2048, ack_wait="30s"), acts=True)
    content = yaml.safe_load(path.read_text())
    content["rules"] = [{"name": "all", "send": ["out"]}]
    content["sinks"] = {"out": {"webhook": {"url": shop.url, "json": {"id": "=id", "device": "=key"}}}}
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path
