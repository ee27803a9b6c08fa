"""`inferloop run`: a pipeline until its sources end or somebody stops it."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from inferloop.cli.units import DurationType

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator, Coroutine

    from inferloop.core.protocols import Delivery
    from inferloop.streams.events import Counters, Summary
    from inferloop.streams.pipeline import Pipeline


@click.command()
@click.argument("file", metavar="PIPELINE.yaml", type=click.Path(path_type=Path))
@click.option("--model-from", type=click.Path(path_type=Path), help="The registry that has the model; by default your own.")
@click.option("--journal", type=click.Path(path_type=Path), help="Where decisions are kept; by default under INFERLOOP_HOME.")
@click.option("--no-ledger", is_flag=True, help="Write no predictions; there is nothing to learn from then.")
@click.option(
    "--drain", type=DurationType(), default="4s", show_default=True, help="How long messages may take to finish when it stops."
)
@click.option("--dry-run", is_flag=True, help="Print what sinks would get, a JSON object a line; acknowledge and change nothing.")
@click.option(
    "--limit", type=click.IntRange(1), help="With --dry-run: end after so many messages of each source.  [default: 100]"
)
@click.option("--live", is_flag=True, help="Show in the terminal what comes, what is decided and how long it takes.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as one JSON object.")
def command(
    file: Path,
    model_from: Path | None,
    journal: Path | None,
    no_ledger: bool,
    drain: float,
    dry_run: bool,
    limit: int | None,
    live: bool,
    as_json: bool,
) -> None:
    r"""Run PIPELINE.yaml: read its sources, decide every message once, deliver to its sinks.

    SIGTERM and Ctrl-C stop reading, finish what was read and acknowledge it. What is not done within --drain comes again
    at the next start, where it finds the decision that was made.

    \b
    Example:
      inferloop run refunds.yaml
      inferloop run refunds.yaml --dry-run --limit 20
    """
    from inferloop.streams.pipeline import Pipeline

    if limit is not None and not dry_run:
        raise click.UsageError("--limit goes with --dry-run")
    pipeline = Pipeline.load(file)
    if dry_run:
        summary = _complete(_rehearse(pipeline, model_from, journal, limit or 100))
    else:
        summary = _complete(_run(pipeline, model_from, journal, ledger=not no_ledger, drain_s=drain, live=live))
    if dry_run:
        click.echo(f"dry run: {summary.messages} messages, {summary.decisions} decisions, nothing was changed", err=True)
        return
    if as_json:
        click.echo(json.dumps(asdict(summary)))
        return
    _print(summary)


async def _run(
    pipeline: Pipeline, model_from: Path | None, journal_at: Path | None, *, ledger: bool, drain_s: float, live: bool
) -> Summary:
    import asyncio
    from contextlib import ExitStack

    from inferloop.core.collector import calm_collector
    from inferloop.data.journal import Journal, journal_path
    from inferloop.data.ledger.ledger import Ledger, ledger_path
    from inferloop.prediction.router import Router
    from inferloop.registry.registry import Registry
    from inferloop.streams.events import Counters

    stop = asyncio.Event()
    _listen(stop)
    counters = Counters(pipeline.name)
    with ExitStack() as stack:
        registry = stack.enter_context(Registry(model_from))
        journal = stack.enter_context(Journal(journal_at or journal_path()))
        book = stack.enter_context(Ledger(ledger_path())) if ledger else None
        async with Router(registry, ledger=book) as router:
            await router.open([pipeline.spec.model.ref])
            calm_collector()
            async with _shown(pipeline.name, counters) if live else nullcontext():
                return await pipeline.run(
                    router=router, journal=journal, ledger=book, stop=stop, drain_s=drain_s, counters=counters
                )


@asynccontextmanager
async def _shown(pipeline: str, counters: Counters) -> AsyncIterator[None]:
    import asyncio

    from rich.console import Console

    from inferloop.cli.live_view import LiveView

    showing = asyncio.create_task(LiveView(pipeline, counters, Console(stderr=True)).show_for_ever())
    try:
        yield
    finally:
        showing.cancel()
        await asyncio.gather(showing, return_exceptions=True)


async def _rehearse(pipeline: Pipeline, model_from: Path | None, journal_at: Path | None, limit: int) -> Summary:
    import asyncio

    from inferloop.data.journal import journal_path
    from inferloop.prediction.router import Router
    from inferloop.registry.registry import Registry
    from inferloop.streams.rehearsing import rehearse

    stop = asyncio.Event()
    _listen(stop)
    with Registry(model_from) as registry:
        async with Router(registry) as router:
            await router.open([pipeline.spec.model.ref])
            journal = journal_at or journal_path()
            return await rehearse(pipeline, router=router, journal=journal, limit=limit, show=_show, stop=stop)


def _show(sink: str, delivery: Delivery) -> None:
    shown = {"sink": sink, "id": delivery.message_id, "key": delivery.key, "payload": delivery.payload}
    click.echo(json.dumps(shown, ensure_ascii=False))


def _listen(stop: asyncio.Event) -> None:
    """Let SIGTERM and Ctrl-C set `stop`; a second one ends the process at once."""
    import asyncio
    import signal

    loop = asyncio.get_running_loop()

    def on_signal(number: signal.Signals) -> None:
        click.echo(f"{number.name}: finishing what was read", err=True)
        stop.set()
        loop.remove_signal_handler(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)


def _complete(work: Coroutine[Any, Any, Summary]) -> Summary:
    """Run to the end, on uvloop where there is one."""
    try:
        from uvloop import run
    except ImportError:
        import asyncio

        return asyncio.run(work)
    return run(work)


def _print(summary: Summary) -> None:
    click.echo(
        f"{summary.pipeline}: {summary.messages} messages, {summary.decisions} decisions, {summary.dead_letters} dead letters, "
        f"{summary.redelivered} came again; p50 {summary.p50_ms:.1f} ms, p99 {summary.p99_ms:.1f} ms, {summary.seconds:.1f} s"
    )
    for sink in sorted({*summary.delivered, *summary.stored, *summary.refused, *summary.failed}):
        counts = (
            (summary.stored.get(sink, 0), "stored"),
            (summary.refused.get(sink, 0), "refused"),
            (summary.failed.get(sink, 0), "failed"),
        )
        extra = "".join(f", {count} {word}" for count, word in counts if count)
        click.echo(f"  {sink}: {summary.delivered.get(sink, 0)} delivered{extra}")
    for name, count in sorted({**summary.rules, **summary.reasons}.items()):
        click.echo(f"  {name}: {count}")
