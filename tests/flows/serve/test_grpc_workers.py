"""gRPC with several workers: they share its port on every transport."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from inferloop.registry.registry import Registry
from inferloop.serving.grpc.transport import GrpcTransport
from support.bundles import linear
from support.grpc_clients import X, tensor

triton = pytest.importorskip("tritonclient.grpc", reason="no tritonclient: pip install 'inferloop[dev]'")
WAIT_S = 90
CONNECTIONS = 40


@pytest.fixture
def address(tmp_path: Path, inferloop_home: Path, monkeypatch: pytest.MonkeyPatch, transport: GrpcTransport) -> Iterator[str]:
    """Where `inferloop serve --workers 2` listens for gRPC."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with Registry() as registry:
        registry.register(linear(tmp_path / "linear"), alias="champion")
    command = [sys.executable, "-m", "inferloop.cli.main", "serve", "linear@champion", "--workers", "2"]
    command += ["--http-port", "0", "--grpc-port", "0", "--grpc-transport", transport.value]
    errors = tmp_path / "serve.err"
    with errors.open("wb") as written:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=written, text=True)
    watchdog = threading.Timer(WAIT_S, process.kill)
    watchdog.start()
    try:
        lines = [process.stdout.readline(), process.stdout.readline()]
        watchdog.cancel()
        assert lines[1].startswith("ready: grpc://"), (lines, errors.read_text())
        yield lines[1].removeprefix("ready: grpc://").strip()
        assert errors.read_text().count("serving url=") == 2
    finally:
        watchdog.cancel()
        process.terminate()
        process.communicate(timeout=WAIT_S)


def test_two_workers_answer_behind_one_port(address: str) -> None:
    for _ in range(CONNECTIONS):  # the kernel deals them out
        with triton.InferenceServerClient(address, channel_args=[("grpc.use_local_subchannel_pool", 1)]) as client:
            assert client.infer("linear", [tensor(X)]).as_numpy("scores").shape == (1, 3)
