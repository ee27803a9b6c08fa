"""What all tests share: a home of their own, the shared data, the services of the machine, and skips that CI refuses."""

from __future__ import annotations

import logging
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# The same examples every time, and no verdict on how fast this machine is; `--hypothesis-profile=default` looks for new ones.
settings.register_profile("same", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("same")

SERVICES = {
    "mosquitto": (1883, "mosquitto -d -p 1883"),
    "postgres": (5432, "pg_ctlcluster 15 main start"),
    "mariadb": (3306, "mariadbd-safe"),
    "redis": (6379, "redis-server --daemonize yes"),
    "rabbitmq": (5672, "rabbitmq-server -detached"),
    "nats": (4222, "nats-server -js"),
}


def required_services() -> set[str]:
    """The services whose absence fails a test instead of skipping it: `INFERLOOP_REQUIRE_SERVICES=mosquitto,redis`; 1 is all."""
    wanted = os.environ.get("INFERLOOP_REQUIRE_SERVICES", "")
    return set(SERVICES) if wanted == "1" else {name for name in wanted.split(",") if name}


@pytest.fixture(autouse=True)
def inferloop_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`INFERLOOP_HOME` of this test alone."""
    home = tmp_path / "inferloop-home"
    monkeypatch.setenv("INFERLOOP_HOME", str(home))
    return home


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative path in a test leads nowhere else."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """The command line and the log settings of a server configure logging; the next test must not inherit that."""
    root, ours = logging.getLogger(), logging.getLogger("inferloop")
    handlers, levels = list(root.handlers), (root.level, ours.level)
    yield
    root.handlers[:] = handlers
    root.setLevel(levels[0])
    ours.setLevel(levels[1])
    if (settings := sys.modules.get("inferloop.serving.operations.logging")) is not None:
        settings._levels.__init__()  # type: ignore[misc]  # the one of the process


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of data sets and models that stand beside the project, where there is one."""
    path = os.environ.get("INFERLOOP_SHARED", "")
    if not path or not Path(path).is_dir():
        pytest.skip("no shared data: set INFERLOOP_SHARED to the folder")
    return Path(path)


@pytest.fixture(scope="session")
def mosquitto() -> str:
    """The URL of the MQTT broker on this machine."""
    return f"mqtt://127.0.0.1:{_listening('mosquitto')}"


def _listening(name: str) -> int:
    port, start = SERVICES[name]
    try:
        socket.create_connection(("127.0.0.1", port), timeout=10).close()
    except OSError:
        pytest.skip(f"{name} does not listen on 127.0.0.1:{port}: start it with `{start}`")
    return port


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Turn a skip that names a required service into a failure."""
    report = yield
    reason = _skip_reason(report)
    missing = sorted(name for name in required_services() if name in reason.lower())
    if missing:
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} skipped though {', '.join(missing)} must be there: {reason}"
    return report


def _skip_reason(report: object) -> str:
    longrepr = getattr(report, "longrepr", None)
    if getattr(report, "outcome", "") != "skipped" or hasattr(report, "wasxfail"):
        return ""
    return str(longrepr[2]) if isinstance(longrepr, tuple) else str(longrepr)
