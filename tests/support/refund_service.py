"""The other system: an HTTP service, a process of its own, that issues each refund once by its Idempotency-Key.

POST /refunds        200; counted as an effect the first time its key comes, as a repetition after that
GET  /stats          what it saw: requests, effects, repetitions, refused, orders; and how many requests it holds
POST /hold/EFFECTS   once it has had so many effects, it holds every refund until it is told of more
POST /fail/COUNT     answers 503 to so many refunds
POST /refuse/ORDER   answers 422 to this order
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Refunds:
    """The process, seen from a test."""

    url: str

    @property
    def refund_url(self) -> str:
        return f"{self.url}/refunds"

    def stats(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self.url}/stats", timeout=60) as answer:
            content: dict[str, Any] = json.load(answer)
            return content

    def is_held_at(self, effects: int) -> bool:
        """Whether it has had so many effects and has one more refund in hand."""
        stats = self.stats()
        return stats["effects"] == effects and stats["held"] > 0

    def post(self, path: str) -> None:
        request = urllib.request.Request(f"{self.url}{path}", data=b"", method="POST")
        urllib.request.urlopen(request, timeout=60).close()


@contextlib.contextmanager
def refund_service() -> Iterator[Refunds]:
    """Run the service until the block ends."""
    process = subprocess.Popen([sys.executable, __file__], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield Refunds(f"http://127.0.0.1:{int(process.stdout.readline())}")
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


class Handler(BaseHTTPRequestHandler):
    """One connection; the counts are the server's."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        command, _, value = self.path[1:].partition("/")
        with self.server.changed:
            answer = self.refund(json.loads(body)["order"]) if command == "refunds" else self.told(command, value)
            self.server.changed.notify_all()
        self.answer(*answer)

    def told(self, command: str, value: str) -> tuple[int, dict[str, Any]]:
        book = self.server.book
        if command == "refuse":
            book["refuse"].append(value)
        else:
            book[command] = int(value)
        return 200, {}

    def refund(self, order: str) -> tuple[int, dict[str, Any]]:
        book, key = self.server.book, self.headers["Idempotency-Key"]
        book["held"] += 1
        self.server.changed.wait_for(lambda: len(book["keys"]) < book["hold"])
        book["held"] -= 1
        book["requests"] += 1
        if book["fail"] > 0:
            book["fail"] -= 1
            book["refused"] += 1
            return 503, {"error": "closed for a moment"}
        if order in book["refuse"]:
            return 422, {"error": "no such order"}
        if key in book["keys"]:
            book["repetitions"] += 1
        else:
            book["keys"][key] = order
        return 200, {"refunded": order}

    def do_GET(self) -> None:
        book = self.server.book
        with self.server.changed:
            counts = {name: book[name] for name in ("requests", "repetitions", "refused", "held")}
            stats = {**counts, "effects": len(book["keys"]), "orders": list(book["keys"].values())}
        self.answer(200, stats)

    def answer(self, status: int, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


class Server(ThreadingHTTPServer):
    """The service."""

    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """Say nothing of clients that were killed."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.changed = threading.Condition()
        self.book: dict[str, Any] = {
            "requests": 0, "repetitions": 0, "refused": 0, "held": 0, "keys": {}, "refuse": [], "fail": 0, "hold": sys.maxsize,
        }  # fmt: skip


if __name__ == "__main__":
    server = Server()
    sys.stdout.write(f"{server.server_address[1]}\n")
    sys.stdout.flush()
    server.serve_forever()
