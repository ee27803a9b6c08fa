"""Clients that leave and engines that fail or stand still, seen through the socket."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from inferloop.core.datatypes import Array, Tensors
from inferloop.core.protocols import Session
from inferloop.prediction.limits import Limits
from support.bundles import linear
from support.serving import Reply, Running, row, serving


class Gate(Session):
    """The real session behind a gate: a run says so in `entered`, waits for `opened`, and raises what `fault` holds."""

    def __init__(self, inner: Session) -> None:
        self.signature = inner.signature
        self.inner = inner
        self.entered = threading.Semaphore(0)
        self.opened = threading.Semaphore(0)
        self.sizes: list[int] = []
        self.fault: Exception | None = None

    def run(self, inputs: Tensors) -> dict[str, Array]:
        self.sizes.append(len(inputs["x"]))
        self.entered.release()
        assert self.opened.acquire(timeout=60)
        if self.fault is not None:
            raise self.fault
        return self.inner.run(inputs)

    def close(self) -> None:
        self.inner.close()

    async def wait(self) -> None:
        """Until a run has begun."""
        assert await asyncio.to_thread(self.entered.acquire, timeout=60)


@pytest.fixture
async def gated(tmp_path: Path) -> AsyncIterator[tuple[Running, Gate]]:
    limits = Limits(max_batch=8, queue_rows=8, inline=False)
    async with serving(tmp_path, linear(tmp_path / "linear"), limits=limits) as running:
        predictor: Any = running.router.predictor("linear")
        gate = predictor._sessions[0] = Gate(predictor._sessions[0])
        yield running, gate
        gate.opened.release(100)


def ask(running: Running, value: float) -> asyncio.Task[Reply]:
    return asyncio.create_task(running.infer("linear", row(value, 0, 0, 0, id=str(value))))


async def queued(running: Running, gate: Gate, count: int) -> tuple[asyncio.Task[Reply], list[asyncio.Task[Reply]]]:
    """One request inside the engine, and `count` that wait for the next batch: the server has them all."""
    first = ask(running, 100.0)
    await gate.wait()
    waiting = [ask(running, float(number)) for number in range(count)]
    await until(lambda: waiting_rows(running) == count)
    return first, waiting


def waiting_rows(running: Running) -> int:
    return running.router.predictor("linear").meter.pending()  # each has one row


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not holds():
            await asyncio.sleep(0.005)


async def test_a_client_that_hangs_up_during_the_run_costs_its_seven_neighbors_nothing(gated: tuple[Running, Gate]) -> None:
    running, gate = gated
    first = ask(running, 100.0)
    await gate.wait()
    rest = [ask(running, float(number)) for number in range(7)]
    _, writer = await asyncio.open_connection("127.0.0.1", running.port)
    body = json.dumps(row(9, 0, 0, 0)).encode()
    writer.write(b"POST /v2/models/linear/infer HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    await until(lambda: waiting_rows(running) == 8)
    gate.opened.release()
    await gate.wait()
    assert gate.sizes == [1, 8], "all eight are in one batch, and the engine runs it"
    connections = running.server.connections
    writer.transport.abort()
    await until(lambda: running.server.connections == connections - 1)  # the server has seen the client leave
    gate.opened.release()
    replies = await asyncio.wait_for(asyncio.gather(first, *rest), 60)
    assert [reply.status for reply in replies] == [200] * 8
    assert [reply.json["id"] for reply in replies[1:]] == [str(float(number)) for number in range(7)]
    gate.opened.release(2)
    assert (await ask(running, 1.0)).status == 200


async def test_an_engine_that_fails_is_a_500_for_those_in_the_batch_and_serves_the_next(gated: tuple[Running, Gate]) -> None:
    running, gate = gated
    gate.fault = RuntimeError("secret address 0xdeadbeef")
    failing = ask(running, 1.0)
    await gate.wait()
    gate.opened.release()
    reply = await failing
    assert (reply.status, list(reply.json)) == (500, ["error"])
    assert "secret" not in reply.json["error"]
    gate.fault = None
    gate.opened.release()
    assert (await ask(running, 2.0)).status == 200


async def test_a_full_queue_says_so_at_once_and_when_to_come_back(gated: tuple[Running, Gate]) -> None:
    running, gate = gated
    first, waiting = await queued(running, gate, 8)
    refused = await asyncio.wait_for(ask(running, 50.0), 60)
    assert (refused.status, list(refused.json)) == (503, ["error"])
    assert int(refused.headers["Retry-After"]) >= 1
    gate.opened.release(10)
    assert [reply.status for reply in await asyncio.gather(first, *waiting)] == [200] * 9


async def test_draining_waits_for_the_engine_and_loses_no_answer(gated: tuple[Running, Gate]) -> None:
    running, gate = gated
    first, waiting = await queued(running, gate, 5)
    running.app.stop_accepting()
    draining = asyncio.create_task(running.server.drain(60))
    await asyncio.sleep(0.1)
    assert not draining.done()
    gate.opened.release(10)
    assert [reply.status for reply in await asyncio.gather(first, *waiting)] == [200] * 6
    await asyncio.wait_for(draining, 60)
