"""`inferloop pipeline`: look at a pipeline file, and try it, without running it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

_FILE = click.argument("file", metavar="PIPELINE.yaml", type=click.Path(path_type=Path))
_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


@click.group()
def command() -> None:
    """Check a pipeline file, run its tests, simulate its failures, print its schema."""


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
def schema() -> None:
    r"""Print the JSON Schema of pipeline files, for editors.

    \b
    Example:
      inferloop pipeline schema > pipeline.schema.json
    """
    from inferloop.streams.schema import pipeline_schema

    click.echo(json.dumps(pipeline_schema(), indent=2))
