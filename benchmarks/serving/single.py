"""One server alone: what it adds to a big model and to one small request, and what it holds while it waits."""

from __future__ import annotations

import multiprocessing
import os
import statistics
import time
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from harness import Row, judged
from serving import asks, models
from serving.contenders import ours
from serving.load import Ask, latencies
from serving.process import SERVER_CORE, Server

_BATCH_SECONDS = 12.0


def resnet(folder: Path, command: str) -> list[Row]:
    """Images per second of a model of ResNet-50's size on one core, beside the bare engine in a loop on the same core."""
    bundle = models.resnet(folder / "resnet-model")
    x = models.row(bundle)
    y = models.bare(bundle)(x)
    ask = asks.protocol_binary("resnet", x, y)
    shares, rates = [], []
    with ours(str(bundle.path), folder=folder / "resnet", options=["--max-batch", "1"]) as server:
        _concurrent(server, ask, seconds=3)
        for _ in range(5):
            bare_rate = _bare_rate(str(bundle.path))
            rates.append(_concurrent(server, ask, seconds=_BATCH_SECONDS))
            after = _bare_rate(str(bundle.path))
            shares.append(rates[-1] / ((bare_rate + after) / 2))
    print("    shares", [round(share, 3) for share in shares])
    return [
        judged("resnet_share_of_bare", round(statistics.median(shares), 3), "", goal=">= 0.95", command=command),
        judged("resnet_rate", round(statistics.median(rates), 2), "images/s", goal="", command=command),
    ]


def idle(folder: Path, command: str) -> list[Row]:
    """Added p50 of one client, memory of a server that waits, and the time until it answers."""
    bundle = models.tiny(folder / "tiny-model-idle")
    x = models.row(bundle)
    bare = models.bare(bundle)
    ask = asks.protocol_json("tiny", x, bare(x))
    added, memory, ready = [], [], []
    for number in range(5):
        with ours(str(bundle.path), folder=folder / f"idle{number}", grpc=True) as server:
            ready.append(server.ready_s)
            server.settle()
            memory.append(server.rss_mb())
            alone = statistics.median(_timed(bare, x) for _ in range(2000))
            added.append((statistics.median(latencies(server, ask, count=2000)) - alone) * 1e6)
    return [
        judged(
            "added_p50_us",
            round(statistics.median(added)),
            "us",
            goal="<= 300",
            command=command,
            peer="the client's part included",
        ),
        judged(
            "idle_mb", round(statistics.median(memory), 1), "MB", goal="<= 100", command=command, peer="resident set, gRPC open"
        ),
        judged("ready_s", round(statistics.median(ready), 2), "s", goal="<= 2", command=command),
    ]


def _timed(run: object, x: object) -> float:
    started = time.perf_counter()
    run(x)  # type: ignore[operator]
    return time.perf_counter() - started


def _concurrent(server: Server, ask: Ask, *, seconds: float, clients: int = 4) -> float:
    """Answers per second of `clients` that each wait for their answer; every answer is compared."""
    from concurrent.futures import ThreadPoolExecutor

    until = time.perf_counter() + seconds

    def client() -> list[float]:
        ends: list[float] = []
        while time.perf_counter() < until:
            latencies(server, ask, count=1, warm=0)
            ends.append(time.perf_counter())
        return ends

    with ThreadPoolExecutor(clients) as pool:
        ends = sorted(end for found in [pool.submit(client) for _ in range(clients)] for end in found.result())
    return (len(ends) - 1) / (ends[-1] - ends[0])


def _bare_rate(path: str) -> float:
    """Runs per second of the bare engine in a process on the server's core."""
    receiver, sender = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("spawn").Process(target=_bare_loop, args=(path, sender))
    process.start()
    rate: float = receiver.recv()
    process.join()
    return rate


def _bare_loop(path: str, sender: Connection) -> None:
    from inferloop.core.bundle import Bundle

    os.sched_setaffinity(0, {SERVER_CORE})
    bundle = Bundle.load(path)
    run = models.bare(bundle)
    x = np.ascontiguousarray(models.row(bundle))
    run(x)
    started, runs = time.perf_counter(), 0
    while time.perf_counter() - started < _BATCH_SECONDS / 2:
        run(x)
        runs += 1
    sender.send(runs / (time.perf_counter() - started))
