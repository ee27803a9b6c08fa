"""10,000 requests of every wrong kind against a server in a process of its own: what is left of it afterwards.

    python benchmarks/serve_chaos.py [--requests 10000]

Prints one JSON object: what was sent and met, whether the server answers, its connections, threads and memory.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from support.bundles import linear  # noqa: E402
from support.chaos import Chaos  # noqa: E402
from support.serving import row  # noqa: E402

BODY = json.dumps(row(0.5, -1.0, 2.0, 0.25)).encode()
PATH = "/v2/models/linear/infer"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=10_000)
    requests = parser.parse_args().requests
    with tempfile.TemporaryDirectory() as folder:
        process = start(Path(folder))
        try:
            found = asyncio.run(measure(process, Path(folder) / "log", requests))
        finally:
            process.terminate()
            found_code = process.wait(60)
    found["exit_code"] = found_code
    print(json.dumps(found, indent=2))
    return 0 if found["answers"] and not found["wrong"] and not found["connections"] and found_code == 0 else 1


def start(folder: Path) -> subprocess.Popen[bytes]:
    linear(folder / "linear")
    command = [
        sys.executable,
        "-m",
        "inferloop.cli.main",
        "serve",
        str(folder / "linear"),
        "--http-port",
        "0",
        "--grpc-port",
        "0",
    ]
    environment = {**os.environ, "INFERLOOP_HOME": str(folder / "home"), "OMP_NUM_THREADS": "1"}
    with (folder / "log").open("wb") as log:
        return subprocess.Popen([*command, "--max-body", "100KB"], env=environment, stdout=log, stderr=log)


async def measure(process: subprocess.Popen[bytes], log: Path, requests: int) -> dict[str, object]:
    port, grpc_port = await ports(process, log)
    await Chaos(port, path=PATH, body=BODY, oversize=200_000, grpc_port=grpc_port, seed=1).run(500)  # warm
    before = rss_mb(process.pid)
    threads = threads_of(process.pid)
    chaos = Chaos(port, path=PATH, body=BODY, oversize=200_000, grpc_port=grpc_port)
    began = time.monotonic()
    await chaos.run(requests)
    took = time.monotonic() - began
    open_after = connections(port)
    while open_after and time.monotonic() - began < took + 30:
        await asyncio.sleep(0.2)
        open_after = connections(port)
    answers = await asyncio.to_thread(predicts, port)
    return {
        "requests": requests,
        "seconds": round(took, 1),
        "sent": dict(chaos.sent),
        "met": dict(chaos.met),
        "wrong": chaos.wrong[:20],
        "answers": answers,
        "connections": open_after,
        "threads_more": threads_of(process.pid) - threads,
        "rss_mb_before": before,
        "rss_mb_after": rss_mb(process.pid),
        "tracebacks": text_of(log).count("Traceback"),
    }


async def ports(process: subprocess.Popen[bytes], log: Path) -> tuple[int, int | None]:
    for _ in range(600):
        text = text_of(log)
        found = re.search(r"ready: http://127\.0\.0\.1:(\d+)", text)
        if found and "try:" in text:
            grpc = re.search(r"ready: grpc://127\.0\.0\.1:(\d+)", text)
            return int(found[1]), int(grpc[1]) if grpc else None
        if process.poll() is not None:
            break
        await asyncio.sleep(0.1)
    raise SystemExit(f"the server did not start:\n{text_of(log)}")


def predicts(port: int) -> bool:
    with urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{port}{PATH}", BODY), timeout=10) as answer:
        return bool(answer.status == 200)


def text_of(log: Path) -> str:
    return log.read_text(errors="replace")


def threads_of(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


def rss_mb(pid: int) -> float:
    match = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return round(int(match[1]) / 1024, 1) if match else float("nan")


def connections(port: int) -> int:
    """The server's ends that are not yet gone: established, or closed by the client alone."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(row[1].endswith(f":{port:04X}") and row[3] in ("01", "08") for row in rows)


if __name__ == "__main__":
    sys.exit(main())
