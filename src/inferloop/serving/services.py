"""What REST and gRPC share: one of each for a server."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from inferloop.core import telemetry
from inferloop.data.ledger.ledger import Ledger
from inferloop.prediction.catalog import Changes
from inferloop.prediction.router import Router
from inferloop.serving.access import AccessLog
from inferloop.serving.keys import Keys
from inferloop.serving.operations.shared_memory import Regions
from inferloop.serving.tally import Tally
from inferloop.serving.tracing import Tracing
from inferloop.serving.workers.peers import Peers
from inferloop.serving.workers.shared_settings import SharedSettings


@dataclass(slots=True)
class Services:
    """The parts behind every front end. Event loop only.

    Attributes:
        router: opened; it stays its maker's.
        ledger: where predictions and feedback go; None for none.
        draining: whether the server is about to stop; it is not ready then.
        body_bytes: the most that a request may hold, decompressed; the same for both front ends.
        keys: who may call what; None where no key is asked for.
        scheme: `https` behind TLS; for lines that people paste.
        changes: opens and closes models by request; None is the router itself. With several workers it reaches all.
        exposition: all metrics of this server in the text format of Prometheus; with several workers of all. May block.
        access: takes a line for each request; None where no access log is kept.
        tracing: which requests are traced, and where their traces go.
        tracer: the same while any request may be traced; None costs the others nothing.
        tally: counts what is traced; with several workers, one for all.
        settings: the settings that requests change, of all workers; None for a server of one process.
        peers: the other workers; None for a server of one process.
        regions: shared memory of clients; off unless it is allowed.
    """

    router: Router
    ledger: Ledger | None = None
    draining: bool = False
    body_bytes: int = 64 * 1024 * 1024
    keys: Keys | None = None
    scheme: str = "http"
    changes: Changes | None = None
    exposition: Callable[[], bytes] = telemetry.exposition
    access: AccessLog | None = None
    tracing: Tracing = field(default_factory=Tracing)
    tracer: Tracing | None = None
    tally: Tally = field(default_factory=Tally)
    settings: SharedSettings | None = None
    peers: Peers | None = None
    regions: Regions = field(default_factory=Regions)

    async def spread(self) -> None:
        """Return when every worker has the settings that a request has changed."""
        if self.settings is not None:
            await self.settings.spread()
