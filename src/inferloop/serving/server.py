"""Puts registry, router, application and transport together, and takes them apart in the reverse order.

SIGTERM, SIGINT -> not ready -> no new connections -> answers that are owed -> router -> ledger
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from inferloop.core.collector import calm_collector
from inferloop.core.target import Target
from inferloop.data.ledger.ledger import Ledger
from inferloop.net.http_server import HttpServer
from inferloop.net.limits import HttpLimits
from inferloop.net.tls import TlsSettings
from inferloop.prediction.limits import Limits
from inferloop.prediction.repository.control import Control
from inferloop.prediction.router import Router
from inferloop.prediction.settings import Isolation
from inferloop.registry.registry import Registry
from inferloop.serving.exposure import check_exposure
from inferloop.serving.grpc.transport import GrpcTransport
from inferloop.serving.holding import Holding
from inferloop.serving.keys import Keys
from inferloop.serving.observation import ObservationSettings, metrics_only, observing
from inferloop.serving.operations.shared_memory import Regions
from inferloop.serving.rest.app import App
from inferloop.serving.services import Services
from inferloop.serving.workers.seat import Seat
from inferloop.serving.workers.worker import Worker

if TYPE_CHECKING:
    from inferloop.serving.grpc.front_end import GrpcFrontEnd

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ServeSettings:
    """How a server runs.

    Attributes:
        host: the address to listen on; one beyond this machine needs TLS with keys or client certificates, or `insecure`.
        port: 0 takes a free one.
        grace_s: how long requests may take to finish when the server stops.
        grpc_port: the port of gRPC, beside REST; 0 takes a free one, None serves no gRPC.
        grpc_transport: what carries gRPC.
        isolation: `process` gives every engine a process of its own.
        repository: a directory of models that are served beside those that are named; None for none.
        model_control: who decides what of it is open.
        repository_poll_s: how often `poll` looks at it.
        keys: the file of API keys; None asks for none.
        open_metrics: metrics need no key.
        client_shm: clients on this machine may lay tensors down in shared memory.
        tls: certificate and key, for REST and gRPC; None serves in the clear.
        observation: metrics on a port of their own, traces, access log.
        seat: this process's place among the workers of the server; None for a server of one process.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    insecure: bool = False
    grace_s: float = 30.0
    target: Target = field(default_factory=Target)
    limits: Limits = field(default_factory=Limits)
    http: HttpLimits = field(default_factory=HttpLimits)
    grpc_port: int | None = None
    grpc_transport: GrpcTransport = GrpcTransport.HTTP2
    isolation: Isolation = Isolation.THREAD
    repository: Path | None = None
    model_control: Control = Control.NONE
    repository_poll_s: float = 1.0
    keys: Path | None = None
    open_metrics: bool = False
    client_shm: bool = False
    tls: TlsSettings | None = None
    observation: ObservationSettings = field(default_factory=ObservationSettings)
    seat: Seat | None = None

    @property
    def is_guarded(self) -> bool:
        """Whether strangers on the network can neither read nor call."""
        return self.tls is not None and (self.keys is not None or self.tls.client_ca is not None)

    @property
    def scheme(self) -> str:
        """What URLs of the server begin with."""
        return "http" if self.tls is None else "https"


@dataclass(frozen=True, slots=True)
class Served:
    """A server that is ready.

    Attributes:
        url: where it listens.
        grpc: where it listens for gRPC, `127.0.0.1:8001` as clients want it; empty without gRPC.
        metrics: the URL of the metrics on their own port; empty without one.
    """

    url: str
    router: Router
    grpc: str = ""
    metrics: str = ""


async def serve(
    refs: Sequence[str],
    *,
    registry: Registry,
    ledger: Ledger | None = None,
    settings: ServeSettings | None = None,
    on_ready: Callable[[Served], None] | None = None,
    stop: asyncio.Event | None = None,
) -> None:
    """Serve models over REST, and gRPC where the settings say so, until SIGTERM, SIGINT or `stop`; then drain and return.

    Args:
        refs: the models to open: `name@alias`, `name:version`, `name`, or the path of a bundle.
        registry: where references are resolved and aliases followed; stays the caller's.
        ledger: where predictions and feedback go; stays the caller's.
        settings: address and bounds.
        on_ready: called once, when requests are answered.
        stop: another way to end it; signals are only handled on the main thread.

    Raises:
        InvalidInput: the address is public and neither guarded nor `settings.insecure`; keys, certificates cannot be used.
        NotFound: a model, or the directory of models, is not there.
        Unavailable: another process has a port.
        MissingDependency: the package of the gRPC transport is not installed.
    """
    chosen = settings or ServeSettings()
    check_exposure(chosen.host, insecure=chosen.insecure, guarded=chosen.is_guarded)
    ending = stop or asyncio.Event()
    holding = Holding(chosen.isolation, 1 if chosen.seat is None else chosen.seat.count)
    async with AsyncExitStack() as stack:
        router = await stack.enter_async_context(_router(registry, ledger, chosen, holding, stack))
        keys = Keys(chosen.keys, open_metrics=chosen.open_metrics) if chosen.keys is not None else None
        regions = Regions(allowed=chosen.client_shm)
        services = Services(router, ledger, body_bytes=chosen.http.body_bytes, keys=keys, scheme=chosen.scheme, regions=regions)
        worker = None if chosen.seat is None else Worker(chosen.seat, services)
        await stack.enter_async_context(observing(services, chosen.observation))
        app = App(services)
        grpc = _grpc(services, chosen)
        server = HttpServer(
            app.handle,
            host=chosen.host,
            port=chosen.port,
            limits=chosen.http,
            admit=app.admit,
            tls=chosen.tls,
            shared=worker is not None,
        )
        metrics = _metrics(app, chosen)
        fronts = [part for part in (server, grpc, metrics) if part is not None]
        try:
            if worker is None:
                await _listen(fronts)  # before the models load: a port in use is told at once
            with _signals(ending):
                await router.open(list(refs))
                if worker is not None:
                    await worker.join()
                    await _listen(fronts)  # now that it can answer: until then the other workers do
                host = f"[{chosen.host}]" if ":" in chosen.host else chosen.host
                url = f"{chosen.scheme}://{host}:{server.port}"
                served = Served(
                    url,
                    router,
                    f"{host}:{grpc.port}" if grpc is not None else "",
                    f"{chosen.scheme}://{host}:{metrics.port}/metrics" if metrics is not None else "",
                )
                log.info("serving", extra={"url": served.url, "grpc": served.grpc, "models": len(refs)})
                if on_ready is not None:
                    on_ready(served)
                await ending.wait()
                log.info("stopping", extra={"connections": server.connections})
                app.stop_accepting()
        finally:
            await asyncio.gather(*(part.drain(chosen.grace_s) for part in fronts))
            if worker is not None:
                await worker.leave()
            log.info("stopped")


def run(
    refs: Sequence[str],
    *,
    registry: Registry,
    ledger: Ledger | None = None,
    settings: ServeSettings | None = None,
    on_ready: Callable[[Served], None] | None = None,
) -> None:
    """`serve` in a process of its own: on uvloop where it is installed, the garbage collector tuned. Blocks; see `serve`."""

    def ready(served: Served) -> None:
        calm_collector()
        if on_ready is not None:
            on_ready(served)

    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(serve(refs, registry=registry, ledger=ledger, settings=settings, on_ready=ready))


def _router(
    registry: Registry, ledger: Ledger | None, settings: ServeSettings, holding: Holding, stack: AsyncExitStack
) -> Router:
    """A router over the registry and, before it, the directory of models; what was uploaded is removed after the router."""
    limits, target, repository = settings.limits, settings.target, None
    if settings.repository is not None:
        from inferloop.prediction.repository.repository import Repository  # what reads its files weighs several megabytes

        repository = Repository(
            settings.repository,
            control=settings.model_control,
            poll_s=settings.repository_poll_s,
            limits=limits,
            target=target,
        )
        stack.enter_context(repository)
    return Router(registry, repository=repository, ledger=ledger, limits=limits, target=target, holding=holding)


async def _listen(fronts: Sequence[HttpServer | GrpcFrontEnd]) -> None:
    for front in fronts:
        await front.start()


def _grpc(services: Services, settings: ServeSettings) -> GrpcFrontEnd | None:
    if settings.grpc_port is None:
        return None
    from inferloop.serving.grpc.front_end import GrpcFrontEnd

    return GrpcFrontEnd(
        services,
        host=settings.host,
        port=settings.grpc_port,
        transport=settings.grpc_transport,
        tls=settings.tls,
        shared=settings.seat is not None,
    )


def _metrics(app: App, settings: ServeSettings) -> HttpServer | None:
    port = settings.observation.metrics_port
    if port is None:
        return None
    handler = metrics_only(app.handle)
    return HttpServer(handler, host=settings.host, port=port, admit=app.admit, tls=settings.tls, shared=settings.seat is not None)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        import uvloop
    except ImportError:  # Windows
        return asyncio.new_event_loop
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


@contextmanager
def _signals(ending: asyncio.Event) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    taken: list[signal.Signals] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        try:
            loop.add_signal_handler(number, ending.set)
        except (NotImplementedError, RuntimeError, ValueError):  # Windows, or not the main thread
            continue
        taken.append(number)
    try:
        yield
    finally:
        for number in taken:
            loop.remove_signal_handler(number)
