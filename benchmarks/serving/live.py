"""Long runs: versions that change under load, memory over time, and Triton's recorded answers."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aiohttp

from harness import ROOT, Row, judged
from inferloop.registry.registry import Registry
from serving import asks, models
from serving.contenders import ours
from serving.load import Ask, lowered
from serving.process import Server

SOAK_MINUTES = float(os.environ.get("SOAK_MINUTES", "30"))


def json_of(command: Sequence[str]) -> Any:
    """What a command prints, as JSON; it may end with a code of its own."""
    return json.loads(subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True).stdout)


def replay_share(folder: Path, command: str) -> list[Row]:
    """Replay the recorded exchanges; without the recordings there is no figure."""
    shared = os.environ.get("INFERLOOP_SHARED")
    if not shared:
        print("replay skipped: set INFERLOOP_SHARED to the folder with the recordings", file=sys.stderr)
        return []
    sys.path.insert(0, str(ROOT / "tests"))
    from support.conformance import outcomes, share

    (folder / "replay").mkdir()
    found = asyncio.run(outcomes(Path(shared), folder / "replay"))
    print(f"    not met: {', '.join(outcome.name for outcome in found if not outcome.met) or 'none'}")
    peer = f"{sum(not outcome.difference and not outcome.deviation for outcome in found)} of {len(found)} alike"
    return [judged("triton_replay_share", round(share(found), 4), "", goal=">= 0.95", command=command, peer=peer)]


def swap(folder: Path, command: str) -> list[Row]:
    """Promotions, rollbacks and canary shares under load: requests that did not get a right answer."""
    failed, requests, swaps = asyncio.run(_swap(folder))
    return [
        judged("swap_failed", failed, "requests", goal="== 0", command=command, peer=f"{requests} requests, {swaps} swaps"),
        judged("swap_swaps", swaps, "swaps", goal=">= 10", command=command),
    ]


async def _swap(folder: Path) -> tuple[int, int, int]:
    bundle = models.tiny(folder / "tiny-model-swap")
    x = models.row(bundle)
    ask = asks.protocol_json("tiny", x, models.bare(bundle)(x))
    home = folder / "swap" / "home"
    os.environ["INFERLOOP_HOME"] = str(home)
    with Registry() as registry:
        registry.register(bundle, alias="champion")
        registry.register(bundle)
        with ours("tiny@champion", folder=folder / "swap") as server:
            load = asyncio.create_task(_load(server, ask, seconds=24, clients=16))
            swaps = 0
            for number in range(12):
                await asyncio.sleep(1.5)
                registry.promote("tiny", 2 - number % 2, by="bench")
                registry.set_canary("tiny", 1 + number % 2, share=0.3)
                swaps += 1
            versions, failed, requests = await load
    return failed, requests, swaps if {"1", "2"} <= versions else 0


async def _load(server: Server, ask: Ask, *, seconds: float, clients: int) -> tuple[set[str], int, int]:
    until = time.monotonic() + seconds
    versions: set[str] = set()
    counts = [0, 0]

    async def client(session: aiohttp.ClientSession) -> None:
        while time.monotonic() < until:
            counts[1] += 1
            try:
                url = f"http://127.0.0.1:{server.port}{ask.path}"
                async with session.post(url, data=ask.body, headers=dict(ask.headers)) as response:
                    body = await response.read()
                    right = response.status == 200 and ask.check(lowered(response.headers.items()), body)
            except aiohttp.ClientError:
                right = False
            if right:
                versions.add(json.loads(body)["model_version"])
            counts[0] += not right

    async with aiohttp.ClientSession() as session:
        await asyncio.gather(*(client(session) for _ in range(clients)))
    return versions, counts[0], counts[1]


def soak(folder: Path, command: str) -> list[Row]:
    """Mixed load for half an hour: small JSON, images both ways, refused requests. Memory at the end against minute five."""
    tiny, image = models.tiny(folder / "soak-tiny"), models.image(folder / "soak-image")
    rows = {name: models.row(bundle) for name, bundle in (("tiny", tiny), ("image", image))}
    right = {name: models.bare(bundle)(rows[name]) for name, bundle in (("tiny", tiny), ("image", image))}
    jobs = [
        asks.protocol_json("tiny", rows["tiny"], right["tiny"]),
        asks.protocol_binary("tiny", rows["tiny"], right["tiny"]),
        asks.protocol_binary("image", rows["image"], right["image"]),
        asks.protocol_json("image", rows["image"], right["image"]),
    ]
    with ours(str(tiny.path), str(image.path), folder=folder / "soak", core=None) as server:
        early, late, requests, wrong = asyncio.run(_soak(server, jobs))
    return [
        judged(
            "soak_rss_ratio",
            round(late / early, 4),
            "",
            goal="<= 1.05",
            command=command,
            peer=f"{early:.0f} MB at a sixth of the time",
        ),
        judged("soak_minutes", SOAK_MINUTES, "min", goal=">= 30", command=command, peer=f"{requests} requests"),
        judged("soak_wrong", wrong, "requests", goal="== 0", command=command),
    ]


async def _soak(server: Server, jobs: list[Ask]) -> tuple[float, float, int, int]:
    """Memory at a sixth of the time and at the end, requests, and answers that were not as they should be."""
    started, seconds = time.monotonic(), SOAK_MINUTES * 60
    refused = Ask("/v2/models/tiny/infer", b'{"inputs": [{}]}', lambda *_: False)
    counts = [0, 0]

    async def client(session: aiohttp.ClientSession, job: Ask, pause_s: float) -> None:
        while time.monotonic() < started + seconds:
            url = f"http://127.0.0.1:{server.port}{job.path}"
            async with session.post(url, data=job.body, headers=dict(job.headers)) as response:
                body = await response.read()
                headers = lowered(response.headers.items())
            counts[0] += 1
            counts[1] += not (job.check(headers, body) if response.status == 200 else job is refused and response.status == 400)
            await asyncio.sleep(pause_s)

    async def early() -> float:
        await asyncio.sleep(seconds / 6)
        return server.rss_mb()

    async with aiohttp.ClientSession() as session:
        pauses = (0.01, 0.01, 0.05, 2.0, 0.05)
        clients = [client(session, job, pause) for job, pause in zip([*jobs, refused], pauses, strict=True) for _ in range(4)]
        first, *_ = await asyncio.gather(early(), *clients)
    server.settle()
    return first, server.rss_mb(), counts[0], counts[1]
