"""HTTP load on one core: wrk for the rate, and one honest client beside it that compares the answers with the engine's."""

from __future__ import annotations

import http.client
import re
import shutil
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from serving.process import LOAD_CORE, Server

_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}
_LUA = """wrk.method = "POST"
local file = io.open("{body}", "rb")
wrk.body = file:read("*a")
file:close()
{headers}
"""


class Failed(Exception):
    """A measurement that must not be quoted."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One request, again and again.

    Attributes:
        check: whether the body of an answer is what the engine computes.
    """

    path: str
    body: bytes
    check: Callable[[Mapping[str, str], bytes], bool]
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Cell:
    """One measurement.

    Attributes:
        cpu_us: CPU time of all the server's processes for one completed request.
        checked: answers that were compared with the engine's.
    """

    cpu_us: float
    rate: float
    p50_ms: float
    p99_ms: float
    requests: int
    checked: int


def median(cells: list[Cell]) -> Cell:
    """The median of each figure."""
    return Cell(
        *(statistics.median(getattr(cell, name) for cell in cells) for name in ("cpu_us", "rate", "p50_ms", "p99_ms")),
        requests=sum(cell.requests for cell in cells),
        checked=sum(cell.checked for cell in cells),
    )


def wrk(server: Server, ask: Ask, *, connections: int = 64, seconds: int = 3) -> Cell:
    """Closed-loop load; CPU time is the server's between the first and the last request.

    Raises:
        Failed: a request failed, or an answer was wrong.
    """
    server.settle()
    with tempfile.TemporaryDirectory() as folder:
        script = _script(Path(folder), ask)
        probe = _Probe(server.port, ask)
        command = [
            "taskset",
            "-c",
            str(LOAD_CORE),
            _wrk(),
            "-t1",
            f"-c{connections}",
            f"-d{seconds}s",
            "--latency",
            "-s",
            script,
        ]
        before = server.cpu_s()
        with probe:
            done = subprocess.run(
                [*command, f"http://127.0.0.1:{server.port}{ask.path}"], capture_output=True, text=True, check=False
            )
        server.settle()
        spent = server.cpu_s() - before
    if done.returncode:
        raise Failed(f"wrk ended with {done.returncode}: {done.stderr[-300:]}")
    if probe.wrong or not probe.right:
        raise Failed(f"{probe.wrong} of {probe.right + probe.wrong} compared answers are wrong; {probe.problem}")
    return _cell(done.stdout, spent, probe.right)


def latencies(server: Server, ask: Ask, *, count: int, warm: int = 20) -> list[float]:
    """Seconds of each of `count` requests of one client that waits for each answer; every answer is compared."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    taken = []
    for number in range(count + warm):
        started = time.perf_counter()
        status, headers, body = _one(connection, ask)
        if number >= warm:
            taken.append(time.perf_counter() - started)
        if status != 200 or not ask.check(headers, body):
            raise Failed(f"status {status}: {body[:200]!r}")
    connection.close()
    return taken


def lowered(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Headers with their names in lower case."""
    return {name.lower(): value for name, value in headers}


class _Probe:
    """A client beside the load that compares what it gets."""

    def __init__(self, port: int, ask: Ask) -> None:
        self.right = self.wrong = 0
        self.problem = ""
        self._port = port
        self._ask = ask
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._main, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(30)

    def _main(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
        while not self._ended.wait(0.002):
            try:
                status, headers, body = _one(connection, self._ask)
            except (OSError, http.client.HTTPException) as error:
                self.wrong, self.problem = self.wrong + 1, repr(error)
                connection.close()
                continue
            if status == 200 and self._ask.check(headers, body):
                self.right += 1
            else:
                self.wrong, self.problem = self.wrong + 1, f"status {status}: {body[:200]!r}"


def _one(connection: http.client.HTTPConnection, ask: Ask) -> tuple[int, Mapping[str, str], bytes]:
    connection.request("POST", ask.path, ask.body, dict(ask.headers))
    response = connection.getresponse()
    return response.status, lowered(response.getheaders()), response.read()


def _script(folder: Path, ask: Ask) -> str:
    (folder / "body").write_bytes(ask.body)
    headers = "\n".join(f'wrk.headers["{name}"] = "{value}"' for name, value in ask.headers.items())
    script = folder / "ask.lua"
    script.write_text(_LUA.format(body=folder / "body", headers=headers))
    return str(script)


def _wrk() -> str:
    found = shutil.which("wrk")
    if found is None:
        raise Failed("wrk is not installed: `apt install wrk`")
    return found


def _cell(text: str, cpu_s: float, checked: int) -> Cell:
    requests, seconds, unit = re.search(r"(\d+) requests in ([\d.]+)(\w+)", text).groups()  # type: ignore[union-attr]
    failed = re.search(r"Non-2xx or 3xx responses: (\d+)|Socket errors: connect (\d+), read (\d+), write (\d+)", text)
    if failed is not None or not int(requests):
        raise Failed(f"not all requests were answered: {failed[0] if failed else 'none was'}")
    total = int(requests) + checked
    p50, p99 = (_seconds(re.search(rf"\s{share}%\s+([\d.]+)(\w+)", text)) * 1e3 for share in (50, 99))  # type: ignore[arg-type]
    return Cell(cpu_s / total * 1e6, int(requests) / (float(seconds) * _UNITS[unit]), p50, p99, int(requests), checked)


def _seconds(match: re.Match[str]) -> float:
    return float(match[1]) * _UNITS[match[2]]
