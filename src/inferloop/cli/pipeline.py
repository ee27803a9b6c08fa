"""`inferloop pipeline`: look at a pipeline file, and try it, without running it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import click

from inferloop.cli.units import DurationType

if TYPE_CHECKING:
    from inferloop.streams.loading import PipelineSpec
    from inferloop.streams.pipeline import Pipeline
    from inferloop.streams.redriving import LetterFile, Redriven
    from inferloop.streams.replay_report import Tally

_FILE = click.argument("file", metavar="PIPELINE.yaml", type=click.Path(path_type=Path))
_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


@click.group()
def command() -> None:
    """Check a pipeline file, run its tests, simulate its failures, replay its history, print its schema."""


@command.command()
@_FILE
@_JSON
def check(file: Path, as_json: bool) -> None:
    r"""Check PIPELINE.yaml as a whole, and print what it guarantees for each source and sink, and why.

    \b
    Example:
      inferloop pipeline check refunds.yaml
    """
    from inferloop.streams.pipeline import Pipeline

    found = Pipeline.load(file).check()
    if as_json:
        click.echo(json.dumps(asdict(found)))
        return
    click.echo(f"pipeline {found.pipeline}")
    for pair in found.pairs:
        click.echo(f"  {pair.source} -> {pair.sink}: {pair.promise}")
        click.echo(f"      {pair.why}")
    for note in found.notes:
        click.echo(f"  note: {note}")


@command.command()
@_FILE
@_JSON
@click.pass_context
def test(ctx: click.Context, file: Path, as_json: bool) -> None:
    r"""Run the `tests` of PIPELINE.yaml with the scores they give and the clock they set; no model, no broker, no sink.

    Exit code 1 if a test fails.

    \b
    Example:
      inferloop pipeline test refunds.yaml
    """
    from inferloop.streams.pipeline import Pipeline

    results = Pipeline.load(file, offline=True).test()
    failed = [result for result in results if not result.passed]
    if as_json:
        click.echo(json.dumps({"passed": not failed, "tests": [asdict(result) for result in results]}))
    else:
        for result in results:
            click.echo(f"{'ok    ' if result.passed else 'FAILED'} {result.name}: {'; '.join(result.decisions)}")
            for problem in result.problems:
                click.echo(f"       {problem}")
        click.echo(f"{len(results) - len(failed)} of {len(results)} tests passed")
    ctx.exit(1 if failed else 0)


@command.command()
@_FILE
@click.option("--seed", type=click.IntRange(0), help="Run this seed alone, and print what happened.")
@click.option("--seeds", type=click.IntRange(1), default=500, show_default=True, help="Run so many seeds, from 0 on.")
@click.option("--jobs", type=click.IntRange(1), help="Processes to run them in.  [default: one a CPU]")
@_JSON
@click.pass_context
def sim(ctx: click.Context, file: Path, seed: int | None, seeds: int, jobs: int | None, as_json: bool) -> None:
    r"""Run PIPELINE.yaml in a simulated world where processes are killed and brokers, sinks, disk and model fail.

    Everything follows from the seed: a failure comes again, event by event, with `--seed`. Exit code 1 if a message was lost,
    or decided or acted on twice.

    \b
    Examples:
      inferloop pipeline sim refunds.yaml
      inferloop pipeline sim refunds.yaml --seed 42
    """
    from inferloop.streams.pipeline import Pipeline
    from inferloop.streams.simulation.campaign import campaign, one

    spec = Pipeline.load(file, offline=True).spec
    report = one(spec, seed) if seed is not None else campaign(file, seeds, jobs=jobs)
    if as_json:
        click.echo(json.dumps(asdict(report)))
    else:
        for line in report.lines():
            click.echo(line)
    ctx.exit(1 if report.problems else 0)


@command.command()
@_FILE
@click.option(
    "--model", "ref", help="Score the kept inputs with this model, NAME:VERSION or NAME@ALIAS; else the scores of then count."
)
@click.option("--rules", "rules_path", type=click.Path(path_type=Path), help="Take the rules of this file instead.")
@click.option("--window", type=DurationType(), help="Only decisions of the last 24h, 7d, ...; else all.")
@click.option("--right", type=float, default=0.0, help="What it is worth to act where the truth is the rule's label.")
@click.option("--wrong", type=float, default=0.0, help="The same where the truth is another label, e.g. -40.")
@click.option("--rows", "rows_path", type=click.Path(path_type=Path), help="Write a line of JSON for each decision.")
@click.option("--report", "report_path", type=click.Path(path_type=Path), help="Write everything as .html or .json.")
@_JSON
def replay(
    file: Path,
    ref: str | None,
    rules_path: Path | None,
    window: float | None,
    right: float,
    wrong: float,
    rows_path: Path | None,
    report_path: Path | None,
    as_json: bool,
) -> None:
    r"""Decide the history of PIPELINE.yaml again, with other rules or another model, and show what would differ.

    Reads the ledger; sends nothing and writes nothing. With truths from feedback and a price per decision it says what the
    change would have won or lost.

    \b
    Examples:
      inferloop pipeline replay refunds.yaml --rules stricter.yaml --window 24h
      inferloop pipeline replay refunds.yaml --model refunds:2 --right 5 --wrong -40 --report replay.html
    """
    import asyncio
    from contextlib import ExitStack

    from inferloop.core.report_text import text
    from inferloop.streams.pipeline import Pipeline
    from inferloop.streams.replay_report import Tally

    before = Pipeline.load(file, offline=True).spec
    after = before if rules_path is None else Pipeline.load(rules_path, offline=True).spec
    tally = Tally(before, after, right=right, wrong=wrong)
    with ExitStack() as stack:
        rows = stack.enter_context(rows_path.open("wb")) if rows_path is not None else None
        asyncio.run(_replayed(before.name, after, ref, window, tally, rows))
    changed = [f"the rules of {after.path}"] if after is not before else []
    changed += [f"the model {ref}"] if ref is not None else []
    report = tally.report(f"{before.name} under {' and '.join(changed) or 'its own rules, from an empty memory'}")
    if report_path is not None:
        report.save(report_path)
    click.echo(report.to_json() if as_json else text(report))


async def _replayed(
    name: str, spec: PipelineSpec, ref: str | None, window_s: float | None, tally: Tally, rows: BinaryIO | None
) -> None:
    import time
    from contextlib import AsyncExitStack

    from inferloop.data.ledger.ledger import Ledger, ledger_path
    from inferloop.prediction.limits import Limits
    from inferloop.prediction.predictor import Predictor
    from inferloop.registry.registry import Registry
    from inferloop.streams.replay_report import line_of
    from inferloop.streams.replaying import redecide

    async with AsyncExitStack() as stack:
        ledger = stack.enter_context(Ledger(ledger_path()))
        model = None
        if ref is not None:
            bundle = stack.enter_context(Registry()).resolve(ref)
            model = await stack.enter_async_context(Predictor.load(bundle, limits=Limits(max_batch=1024)))
        since = 0.0 if window_s is None else time.time() - window_s
        async for one in redecide(spec, ledger.decided(name, since=since, inputs=model is not None), model=model):
            tally.add(one)
            if rows is not None:
                rows.write(line_of(one))


@command.command()
@_FILE
@click.option(
    "--from", "letters", type=click.Path(path_type=Path), help="Dead letters in this file, instead of the pipeline's own."
)
@click.option("--reason", default="", help="Only those whose reason contains this text; the others stay.")
@click.option("--dry-run", is_flag=True, help="Count them by reason, and do nothing.")
@_JSON
@click.pass_context
def redrive(ctx: click.Context, file: Path, letters: Path | None, reason: str, dry_run: bool, as_json: bool) -> None:
    r"""Try the dead letters of PIPELINE.yaml once more, after what was wrong was mended.

    Messages that could not be decided are decided anew; deliveries that a sink refused are sent again with the same key. The
    pipeline must not be running. What fails again is a dead letter again: exit code 1.

    \b
    Examples:
      inferloop pipeline redrive refunds.yaml --dry-run
      inferloop pipeline redrive refunds.yaml --reason "field 'total'"
    """
    import asyncio
    from collections import Counter

    from inferloop.streams.pipeline import Pipeline
    from inferloop.streams.redriving import LetterFile

    pipeline = Pipeline.load(file)
    source = LetterFile(pipeline.spec, letters)
    if dry_run:
        reasons = Counter(letter.reason for letter in source.look() if reason in letter.reason)
        if as_json:
            click.echo(json.dumps(reasons))
            return
        for text, count in reasons.most_common():
            click.echo(f"{count:>7}  {text}")
        return
    result = asyncio.run(_redriven(pipeline, source, reason))
    if as_json:
        click.echo(json.dumps(asdict(result)))
    else:
        sent = "".join(f", {count} delivered to {sink}" for sink, count in result.delivered.items())
        click.echo(
            f"{result.letters} letters: {result.decided} decided{sent}, {result.dead} dead again, {result.kept} left as they were"
        )
    ctx.exit(1 if result.dead or (result.kept and not reason) else 0)


async def _redriven(pipeline: Pipeline, source: LetterFile, reason: str) -> Redriven:
    from contextlib import ExitStack

    from inferloop.data.journal import Journal, journal_path
    from inferloop.data.ledger.ledger import Ledger, ledger_path
    from inferloop.prediction.router import Router
    from inferloop.registry.registry import Registry
    from inferloop.streams.redriving import redrive

    with ExitStack() as stack:
        registry, journal = stack.enter_context(Registry()), stack.enter_context(Journal(journal_path()))
        ledger = stack.enter_context(Ledger(ledger_path()))
        async with Router(registry, ledger=ledger) as router:
            await router.open([pipeline.spec.model.ref])
            return await redrive(pipeline, source, router=router, journal=journal, ledger=ledger, reason=reason)


@command.command()
def schema() -> None:
    r"""Print the JSON Schema of pipeline files, for editors.

    \b
    Example:
      inferloop pipeline schema > pipeline.schema.json
    """
    from inferloop.streams.schema import pipeline_schema

    click.echo(json.dumps(pipeline_schema(), indent=2))
