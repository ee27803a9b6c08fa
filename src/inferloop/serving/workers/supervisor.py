"""Starts the workers, restarts those that die, and ends them together. It holds no model and no connection.

start ── the first worker alone: what is wrong with models or options is said once ── ready ── the others ── all ready
a worker is gone ── start the next one at once; with growing pauses where they die again and again
SIGTERM, SIGINT ── to all ── each drains ── end
"""

from __future__ import annotations

import logging
import selectors
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from inferloop.serving.workers.board import fold
from inferloop.serving.workers.place import Place
from inferloop.serving.workers.seat import Seat

log = logging.getLogger(__name__)

_SPARE_S = 10.0


class Supervisor:
    """Keeps `count` workers alive. Runs on the main thread, which it gives to nothing else.

    Attributes:
        places: the workers.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        count: int,
        ports: Mapping[str, int],
        grace_s: float = 30.0,
        on_ready: Callable[[str], None] | None = None,
    ) -> None:
        """Set up; nothing is started.

        Args:
            command: starts one worker, which takes its `Seat`, serves until SIGTERM and says when it is ready.
            count: how many, at least 1.
            ports: reserved by the caller, see `Seat.ports`.
            grace_s: how long a worker may take to drain; it is killed some seconds later.
            on_ready: called once, when all workers answer, with what the first one said.
        """
        self._command = command
        self._count = count
        self._ports = dict(ports)
        self._grace_s = grace_s
        self._on_ready = on_ready
        self._selector = selectors.DefaultSelector()
        self._stop_by: float | None = None
        self._announced = False
        self.places: list[Place] = []

    def run(self) -> int:
        """Work until SIGTERM or SIGINT.

        Returns:
            0; or the exit code of the first worker, if it ended before it was ever ready.
        """
        with tempfile.TemporaryDirectory(prefix="inferloop-workers-") as folder, self._signals():
            self.places = [Place(self._command, self._seats(index, folder)) for index in range(self._count)]
            while True:
                self._start_due()
                failed = self._listen(Path(folder))
                if failed is not None:
                    return failed
                if self._stop_by is not None and not any(place.is_up for place in self.places):
                    return 0

    def stop(self) -> None:
        """End all workers; `run` returns when the last one is gone."""
        if self._stop_by is None:
            log.info("stopping workers", extra={"workers": self._count})
            self._stop_by = time.monotonic() + self._grace_s + _SPARE_S
            for place in self.places:
                place.signal(signal.SIGTERM)

    def _seats(self, index: int, folder: str) -> Callable[[int], Seat]:
        return lambda line: Seat(index, self._count, self._ports, folder, line)

    def _start_due(self) -> None:
        if self._stop_by is not None:
            if time.monotonic() > self._stop_by:
                for place in self.places:
                    place.signal(signal.SIGKILL)
            return
        first = self.places[0]
        for place in self.places if first.was_ready else [first]:
            if not place.is_up and time.monotonic() >= place.start_at:
                self._start(place)

    def _start(self, place: Place) -> None:
        try:
            line = place.start()
        except OSError as error:  # no memory, no process: the other workers go on, and it is tried again
            if not self.places[0].was_ready:
                raise
            place.postpone()
            log.warning("worker not started", extra={"error": str(error)})
            return
        self._selector.register(line, selectors.EVENT_READ, place)
        log.info("worker started", extra={"pid": place.pid, "starts": place.starts})

    def _listen(self, folder: Path) -> int | None:
        """Wait for what happens next; an exit code if there is no use in going on."""
        for key, _ in self._selector.select(self._patience_s()):
            place = key.data
            if place is None:
                self._signaled(key.fileobj)
            elif not place.hear():
                self._selector.unregister(key.fileobj)
                code = self._lost(place, folder)
                if not self.places[0].was_ready:
                    return 0 if self._stop_by is not None else code or 3
        if not self._announced and all(place.text is not None for place in self.places):
            self._announced = True
            if self._on_ready is not None:
                self._on_ready(self.places[0].text or "")
        return None

    def _patience_s(self) -> float | None:
        """Until the next worker is to be started or killed; None if only an event can change anything."""
        if self._stop_by is not None:
            times = [self._stop_by]
        else:
            places = self.places if self.places[0].was_ready else self.places[:1]
            times = [place.start_at for place in places if not place.is_up]
        return max(0.0, min(times) - time.monotonic()) if times else None

    def _lost(self, place: Place, folder: Path) -> int:
        pid = place.pid
        code = place.gone()
        with suppress(OSError):  # a full disk must not end the supervisor: the counts of one worker are lost
            fold(folder, pid)
        if self._stop_by is None:
            pause_s = max(0.0, place.start_at - time.monotonic())
            log.warning("worker ended, starting another", extra={"pid": pid, "exit_code": code, "pause_s": pause_s})
        return code

    def _signaled(self, wake: object) -> None:
        if isinstance(wake, socket.socket) and set(wake.recv(64)) & {signal.SIGTERM, signal.SIGINT}:
            self.stop()

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Signals become something to read, so that nothing runs inside a handler."""
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            end.setblocking(False)
        self._selector.register(ours, selectors.EVENT_READ, None)
        before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGTERM, signal.SIGINT)}
        wakeup = signal.set_wakeup_fd(theirs.fileno())
        try:
            yield
        finally:
            signal.set_wakeup_fd(wakeup)
            for number, handler in before.items():
                signal.signal(number, handler)
            self._selector.close()
            ours.close()
            theirs.close()
            for place in self.places:
                place.signal(signal.SIGKILL)
