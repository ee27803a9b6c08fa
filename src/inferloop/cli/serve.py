"""`inferloop serve`: models over REST and gRPC."""

from __future__ import annotations

import json
import logging
import math
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from inferloop.cli.units import DurationType, SizeType

if TYPE_CHECKING:
    from inferloop.core.bundle import Bundle
    from inferloop.core.signature import Signature
    from inferloop.net.tls import TlsSettings
    from inferloop.prediction.live import ModelState
    from inferloop.serving.server import Served
    from inferloop.serving.workers.seat import Seat

log = logging.getLogger(__name__)

_EXAMPLES = {
    "text": "-H 'Content-Type: text/plain' -d 'hello'",
    "image": "-H 'Content-Type: image/png' --data-binary @FILE.png",
    "audio": "-H 'Content-Type: audio/wav' --data-binary @FILE.wav",
}
_LINE = 300


@click.command()
@click.argument("models", metavar="[MODEL...]", nargs=-1)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--http-port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="Port; 0 takes a free one.")
@click.option(
    "--grpc-port", type=click.IntRange(0, 65535), help="Port of gRPC; 0 takes a free one. Unless given, the HTTP port and 1."
)
@click.option("--no-grpc", is_flag=True, help="Serve REST only.")
@click.option(
    "--grpc-transport", type=click.Choice(["http2", "grpcio"]), default="http2", show_default=True, help="What carries gRPC."
)
@click.option("--repository", type=click.Path(path_type=Path), help="A directory of models to serve, ours, Triton's or OVMS's.")
@click.option(
    "--model-control",
    type=click.Choice(["none", "poll", "explicit"]),
    default="none",
    show_default=True,
    help="Who decides what of the repository is open: the start, its files, requests.",
)
@click.option("--load", "wanted", multiple=True, metavar="NAME", help="With --model-control explicit: open it at the start.")
@click.option("--poll", type=DurationType(), default="1s", show_default=True, help="How often `poll` looks at the repository.")
@click.option("--target", default="onnxruntime:cpu:f32@1", show_default=True, help="Where the models are loaded.")
@click.option("--workers", type=click.IntRange(1, 256), default=1, show_default=True, help="Processes that share the ports.")
@click.option(
    "--isolation", type=click.Choice(["thread", "process"]), default="thread", show_default=True, help="Where engines run."
)
@click.option("--max-batch", type=click.IntRange(1), default=64, show_default=True, help="Rows of one run of the engine.")
@click.option("--allow-client-shm", is_flag=True, help="Clients on this machine may use shared memory; one worker only.")
@click.option("--max-body", type=SizeType(), default="64MB", show_default=True, help="Largest request body.")
@click.option("--store-inputs", default="labeled", show_default=True, help="What the ledger keeps; or sample:5%, full, hash.")
@click.option("--no-ledger", is_flag=True, help="Write no predictions; feedback is refused.")
@click.option(
    "--grace", type=DurationType(), default="30s", show_default=True, help="How long requests may take to finish when it stops."
)
@click.option("--keys", type=click.Path(path_type=Path), help="Ask for API keys: the file that `inferloop keys` writes.")
@click.option("--open-metrics", is_flag=True, help="With --keys: metrics need none.")
@click.option("--tls-cert", type=click.Path(path_type=Path), help="Serve over TLS: the certificate, PEM; followed when renewed.")
@click.option("--tls-key", type=click.Path(path_type=Path), help="The private key of --tls-cert, PEM.")
@click.option("--tls-client-ca", type=click.Path(path_type=Path), help="Ask clients for a certificate that this CA has signed.")
@click.option("--metrics-port", type=click.IntRange(0, 65535), help="Port of the metrics; 8002 beside 8000, else none.")
@click.option("--no-metrics-port", is_flag=True, help="Serve the metrics on the HTTP port only.")
@click.option("--trace-dir", type=click.Path(path_type=Path), help="Let admins switch on files of traces, in this folder.")
@click.option("--trace-rate", type=click.IntRange(1), default=1, show_default=True, help="With spans: one of so many.")
@click.option("--otel-endpoint", default="", help="Send spans to this OTLP/HTTP collector; OTEL_* variables hold, too.")
@click.option("--access-log", default="", metavar="FILE", help="A JSON line for each request; - for stderr.")
@click.option("--insecure", is_flag=True, help="Allow an address that other machines can reach, without keys and TLS.")
def command(
    models: tuple[str, ...],
    host: str,
    http_port: int,
    grpc_port: int | None,
    no_grpc: bool,
    grpc_transport: str,
    repository: Path | None,
    model_control: str,
    wanted: tuple[str, ...],
    poll: float,
    target: str,
    workers: int,
    isolation: str,
    max_batch: int,
    allow_client_shm: bool,
    max_body: int,
    store_inputs: str,
    no_ledger: bool,
    grace: float,
    keys: Path | None,
    open_metrics: bool,
    tls_cert: Path | None,
    tls_key: Path | None,
    tls_client_ca: Path | None,
    metrics_port: int | None,
    no_metrics_port: bool,
    trace_dir: Path | None,
    trace_rate: int,
    otel_endpoint: str,
    access_log: str,
    insecure: bool,
) -> int:
    r"""Serve MODELs over REST and gRPC: the Open Inference Protocol v2, raw images, recordings, text and JSON, feedback, metrics.

    MODEL is a bundle path, name@alias, name:version or a name. Without one, and without --repository, every registered model is
    served. Aliases are followed while it runs. SIGTERM finishes what was taken, then ends.

    \b
    Example:
      inferloop serve refunds@champion
      curl -H "Content-Type: text/plain" -d "my flight was cancelled" http://127.0.0.1:8000/v2/models/refunds/infer
    """
    from inferloop.core.errors import NotFound
    from inferloop.core.target import Target
    from inferloop.data.ledger.ledger import Ledger, ledger_path
    from inferloop.data.ledger.policy import LedgerPolicy
    from inferloop.net.limits import HttpLimits
    from inferloop.prediction.limits import Limits
    from inferloop.prediction.repository.control import Control
    from inferloop.prediction.settings import Isolation
    from inferloop.registry.registry import Registry
    from inferloop.serving.exposure import check_exposure
    from inferloop.serving.grpc.transport import GrpcTransport
    from inferloop.serving.observation import ObservationSettings
    from inferloop.serving.server import ServeSettings, run
    from inferloop.serving.workers.seat import Seat
    from inferloop.serving.workers.start import seated, serve_together

    settings = ServeSettings(
        host=host,
        port=http_port,
        insecure=insecure,
        grace_s=grace,
        target=Target.parse(target),
        limits=Limits(max_batch=max_batch),
        http=HttpLimits(body_bytes=max_body),
        grpc_port=None if no_grpc else _grpc_port(grpc_port, http_port),
        grpc_transport=GrpcTransport(grpc_transport),
        isolation=Isolation(isolation),
        repository=repository,
        model_control=Control(model_control),
        repository_poll_s=poll,
        keys=keys,
        open_metrics=open_metrics,
        client_shm=allow_client_shm,
        tls=_tls(tls_cert, tls_key, tls_client_ca),
        observation=ObservationSettings(
            metrics_port=None if no_metrics_port else _metrics_port(metrics_port, http_port),
            trace_folder=trace_dir,
            otel_endpoint=otel_endpoint,
            trace_rate=trace_rate,
            access_log=access_log,
        ),
    )
    if allow_client_shm and workers > 1:
        raise click.UsageError("--allow-client-shm needs --workers 1: a region is registered with one process")
    if wanted and (repository is None or settings.model_control is not Control.EXPLICIT):
        raise click.UsageError("--load needs --repository and --model-control explicit")
    check_exposure(host, insecure=insecure, guarded=settings.is_guarded)
    policy = LedgerPolicy.parse(store_inputs)
    seat = Seat.take()
    if seat is not None:
        settings = seated(settings, seat)
    elif workers > 1:
        return serve_together(settings, count=workers, on_ready=click.echo)
    with Registry() as registry:
        refs = (*models, *wanted) or (() if repository is not None else tuple(info.name for info in registry.models()))
        if not refs and repository is None:
            raise NotFound("no model is registered", hint="name the path of a bundle, or register one with `inferloop train`")
        if no_ledger:
            run(refs, registry=registry, settings=settings, on_ready=partial(_announce, seat))
            return 0
        with Ledger(ledger_path(), policy=policy) as ledger:
            run(refs, registry=registry, ledger=ledger, settings=settings, on_ready=partial(_announce, seat))
    return 0


def _tls(certificate: Path | None, key: Path | None, client_ca: Path | None) -> TlsSettings | None:
    from inferloop.net.tls import TlsSettings

    if certificate is not None and key is not None:
        return TlsSettings(certificate, key, client_ca)
    if certificate is not None or key is not None or client_ca is not None:
        raise click.UsageError("TLS needs both --tls-cert and --tls-key")
    return None


def _grpc_port(asked: int | None, http_port: int) -> int:
    """The port behind that of HTTP, unless another one was asked for."""
    if asked is not None:
        return asked
    return http_port + 1 if 0 < http_port < 65535 else 0


def _metrics_port(asked: int | None, http_port: int) -> int | None:
    """8002 beside the usual 8000; a server on another port gets one only if it is asked for."""
    return 8002 if asked is None and http_port == 8000 else asked


def _announce(seat: Seat | None, served: Served) -> None:
    """Say that it answers; one of several workers tells it to the supervisor, who speaks for all."""
    lines = [f"ready: {served.url}"]
    if served.grpc:
        lines.append(f"ready: grpc://{served.grpc}")
    lines += [f"try:   {_curl(served.url, served.router.bundle(state.ref))}" for state in _answering(served)[:1]]
    (click.echo if seat is None else seat.ready)("\n".join(lines))


def _answering(served: Served) -> list[ModelState]:
    return [state for state in served.router.models() if state.state == "READY"]


def _curl(url: str, bundle: Bundle) -> str:
    """A line that works when it is pasted."""
    address = f"{url}/v2/models/{bundle.name}"
    kinds = list(bundle.manifest.transforms.fields.values())
    if len(kinds) == 1 and kinds[0] in _EXAMPLES:
        return f"curl {_EXAMPLES[kinds[0]]} {address}/infer"
    body = "" if kinds else _tensors(bundle.signature)
    return f"curl -d '{body}' {address}/infer" if body else f"curl {address}"


def _tensors(signature: Signature) -> str:
    """A request with zeros; empty if it would be too long for a line, or a datatype has no JSON."""
    from inferloop.serving.rest import tensor_json

    if not all(tensor_json.takes(spec.dtype) for spec in signature.inputs):
        return ""
    inputs = []
    for spec in signature.inputs:
        shape = [size or 1 for size in spec.shape]
        value = "" if spec.dtype == "BYTES" else False if spec.dtype == "BOOL" else 0
        inputs.append({"name": spec.name, "shape": shape, "datatype": spec.dtype, "data": [value] * math.prod(shape)})
    body = json.dumps({"inputs": inputs})
    return body if len(body) <= _LINE else ""
