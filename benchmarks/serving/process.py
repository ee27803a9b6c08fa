"""A server under test: started on a core of its own, measured with all its processes, stopped by process id."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

SERVER_CORE, LOAD_CORE = (0, 1) if (os.cpu_count() or 1) > 1 else (0, 0)
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


class NotReady(Exception):
    """A server that did not come up; the message has the end of its log."""


@dataclass(frozen=True, slots=True)
class Server:
    """A running server.

    Attributes:
        ready_s: from the start of the process to its first good answer.
    """

    pid: int
    port: int
    grpc_port: int
    ready_s: float

    def cpu_s(self) -> float:
        """User and system time of all its processes so far, in ticks of 10 ms."""
        return sum(_cpu_s(pid) for pid in family(self.pid))

    def memory_mb(self) -> float:
        """Proportional set size of all its processes."""
        return sum(_pss_kb(pid) for pid in family(self.pid)) / 1024

    def rss_mb(self) -> float:
        """Resident set size of all its processes."""
        return sum(_status_kb(pid, "VmRSS:") for pid in family(self.pid)) / 1024

    def settle(self) -> None:
        """Wait until it has nothing more to do, so that one measurement does not pay for the one before."""
        for _ in range(50):
            before = self.cpu_s()
            time.sleep(0.2)
            if self.cpu_s() - before <= 2 * _TICK_S:
                return


@contextmanager
def running(
    command: Sequence[str],
    *,
    port: int,
    grpc_port: int = 0,
    ready: str = "/v2/health/ready",
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
    patience_s: float = 90,
    core: int | None = SERVER_CORE,
) -> Iterator[Server]:
    """Start a server, wait until `ready` answers anything but an error, and stop it at the end.

    Raises:
        NotReady: it ended, or did not answer in time.
    """
    pinned = ["taskset", "-c", str(core), *command] if core is not None else list(command)
    with tempfile.TemporaryFile() as log:
        started = time.perf_counter()
        process = subprocess.Popen(
            pinned, stdout=log, stderr=log, cwd=folder, env={**os.environ, **(environment or {})}, start_new_session=True
        )
        try:
            _wait(process, f"http://127.0.0.1:{port}{ready}", started + patience_s)
            yield Server(process.pid, port, grpc_port, time.perf_counter() - started)
        except NotReady as error:
            log.seek(0)
            raise NotReady(f"{error}: ...{log.read()[-9000:].decode(errors='replace')}") from None
        finally:
            _stop(process)


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def family(pid: int) -> list[int]:
    """A process and all that descend from it."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))):
            parents.setdefault(int(fields[1]), []).append(int(entry.name))
    found = [pid]
    for known in found:
        found.extend(parents.get(known, ()))
    return found


def _wait(process: subprocess.Popen[bytes], url: str, until: float) -> None:
    while time.perf_counter() < until:
        if process.poll() is not None:
            raise NotReady(f"it ended with {process.returncode}")
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except urllib.error.HTTPError as error:
            if error.code in (404, 405):  # it has no such page, but it answers
                return
        except OSError:
            pass
        time.sleep(0.01)
    raise NotReady("it gave no answer in time")


def _stop(process: subprocess.Popen[bytes]) -> None:
    members = family(process.pid)
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for pid in members[1:]:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def _stat(pid: int) -> list[str]:
    """Fields of /proc/PID/stat behind the name: state, parent, ..."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _cpu_s(pid: int) -> float:
    fields = _stat(pid)
    return (int(fields[11]) + int(fields[12])) * _TICK_S if fields else 0.0


def _pss_kb(pid: int) -> int:
    return _field_kb(Path(f"/proc/{pid}/smaps_rollup"), "Pss:")


def _status_kb(pid: int, name: str) -> int:
    return _field_kb(Path(f"/proc/{pid}/status"), name)


def _field_kb(path: Path, name: str) -> int:
    try:
        return next((int(line.split()[1]) for line in path.read_text().splitlines() if line.startswith(name)), 0)
    except OSError:
        return 0
