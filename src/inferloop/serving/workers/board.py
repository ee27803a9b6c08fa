"""Where the workers of one server write what they counted, so that each of them can tell what all did.

    FOLDER/123.prom     of the process 123, written anew every second
    FOLDER/gone.prom    of the processes that have ended; the first line names them

Every file only ever grows in its counters, and a reader reads files only, its own too: whichever worker is asked, a counter
never goes back. What a worker counted in its last second is lost when it is killed.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path

from inferloop.serving.workers.sums import add_up, lasting

log = logging.getLogger(__name__)

PUBLISH_S = 1.0
_GONE = "gone.prom"
_PIDS = "# pids "


class Board:
    """This process's part of the board, and the sum of all. Any thread; every method may wait for the disk.

    Args:
        folder: shared by all workers of one server.
        exposition: the metrics of this process alone, in the text format of Prometheus.
    """

    def __init__(self, folder: Path, exposition: Callable[[], bytes]) -> None:
        self._folder = folder
        self._exposition = exposition
        self._own = folder / f"{os.getpid()}.prom"
        self._writing = threading.Lock()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._publish_again, name="inferloop-metrics", daemon=True)
        self._thread.start()

    def publish(self) -> None:
        """Write what this process counted until now."""
        with self._writing:
            _write(self._own, self._exposition())

    def text(self) -> bytes:
        """The metrics of all workers, those of the dead too; of the others at most `PUBLISH_S` seconds old."""
        self.publish()
        return total(self._folder)

    def close(self) -> None:
        """Publish for the last time. A second call does nothing."""
        if not self._closed.is_set():
            self._closed.set()
            self._thread.join()
            self._try_to_publish()

    def _publish_again(self) -> None:
        while not self._closed.wait(PUBLISH_S):
            self._try_to_publish()

    def _try_to_publish(self) -> None:
        try:
            self.publish()
        except OSError as error:  # the folder goes with the supervisor; a full disk may have room again
            log.debug("metrics not published", extra={"error": str(error)})


def total(folder: Path) -> bytes:
    """The sum of all processes.

    What the living wrote is read first: a process that is folded meanwhile is named in `gone.prom`, and counted once.
    """
    living = {}
    for path in sorted(folder.glob("*.prom")):
        if path.name != _GONE:
            living[path.stem] = _read(path)
    gone, pids = _gone(folder)
    return add_up([*(text for pid, text in living.items() if pid not in pids), gone]).encode()


def fold(folder: Path, pid: int) -> None:
    """Add what an ended process counted to `gone.prom`. Called by the supervisor only, once for each process."""
    text = _read(folder / f"{pid}.prom")
    gone, pids = _gone(folder)
    names = _PIDS + " ".join([*pids, str(pid)]) + "\n"
    _write(folder / _GONE, (names + add_up([gone, lasting(text)])).encode())
    (folder / f"{pid}.prom").unlink(missing_ok=True)


def _gone(folder: Path) -> tuple[str, list[str]]:
    first, _, text = _read(folder / _GONE).partition("\n")
    return text, first.removeprefix(_PIDS).split()


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""


def _write(path: Path, content: bytes) -> None:
    """All of it or nothing, for whoever reads meanwhile."""
    new = path.with_suffix(f".{os.getpid()}.new")
    new.write_bytes(content)
    new.replace(path)
