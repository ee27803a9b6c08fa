"""A server of several processes, from the settings of one."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace

from inferloop.serving.exposure import check_exposure
from inferloop.serving.server import ServeSettings
from inferloop.serving.workers.ports import reserve
from inferloop.serving.workers.seat import Seat
from inferloop.serving.workers.supervisor import Supervisor


def serve_together(settings: ServeSettings, *, count: int, on_ready: Callable[[str], None]) -> int:
    """Run this process's own command line in `count` workers, until SIGTERM or SIGINT. Main thread only; blocks.

    Args:
        settings: of the server; only its addresses and `grace_s` matter here.
        count: how many workers.
        on_ready: called once, when all workers answer, with the text that the first one said.

    Returns:
        The exit code, see `Supervisor.run`.

    Raises:
        InvalidInput: the address is public and neither guarded nor `settings.insecure`.
        Unavailable: another process has a port.
        Unsupported: this system cannot share a port.
    """
    check_exposure(settings.host, insecure=settings.insecure, guarded=settings.is_guarded)
    wanted = {"http": settings.port, "grpc": settings.grpc_port, "metrics": settings.observation.metrics_port}
    with ExitStack() as held:
        taken = {
            name: held.enter_context(reserve(settings.host, port)).getsockname()[1]
            for name, port in wanted.items()
            if port is not None
        }
        supervisor = Supervisor(_this_command(), count=count, ports=taken, grace_s=settings.grace_s, on_ready=on_ready)
        return supervisor.run()


def seated(settings: ServeSettings, seat: Seat) -> ServeSettings:
    """The settings of one of the workers: on the ports that all share."""
    observation = replace(settings.observation, metrics_port=seat.ports.get("metrics"))
    return replace(settings, seat=seat, port=seat.ports["http"], grpc_port=seat.ports.get("grpc"), observation=observation)


def _this_command() -> list[str]:
    """The command line of this process, to be run again by the same interpreter."""
    return [sys.executable, *(["-P"] if sys.flags.safe_path else []), "-m", "inferloop.cli.main", *sys.argv[1:]]
