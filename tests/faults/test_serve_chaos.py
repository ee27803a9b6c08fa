"""Hundreds of clients that do everything wrong: afterwards the server is as before."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from inferloop.net.limits import HttpLimits
from inferloop.serving.grpc.transport import GrpcTransport
from support.bundles import linear
from support.chaos import Chaos
from support.serving import row, serving

REQUESTS = 1500
BODY = json.dumps(row(0.5, -1.0, 2.0, 0.25)).encode()


@pytest.mark.timeout(600)
async def test_after_chaos_the_server_answers_and_nothing_is_left(tmp_path: Path) -> None:
    limits = HttpLimits(body_bytes=100_000, header_s=60, linger_s=60)
    async with serving(tmp_path, linear(tmp_path / "linear"), http=limits, grpc=GrpcTransport.HTTP2) as server:
        assert (await server.infer("linear", row(0.5, -1.0, 2.0, 0.25))).status == 200
        before = len(asyncio.all_tasks())
        port = server.grpc.port if server.grpc is not None else None
        chaos = Chaos(server.port, path="/v2/models/linear/infer", body=BODY, oversize=200_000, grpc_port=port)
        await chaos.run(REQUESTS)
        assert chaos.wrong == []
        assert all(chaos.met[kind] > 50 for kind in chaos.sent), chaos.met
        assert sum(chaos.sent.values()) == REQUESTS
        async with asyncio.timeout(60):
            while server.server.connections > 1 or len(asyncio.all_tasks()) > before:  # the session keeps one open
                await asyncio.sleep(0.05)
        assert (await server.infer("linear", row(0.5, -1.0, 2.0, 0.25))).status == 200
