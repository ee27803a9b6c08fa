"""`inferloop pipeline`: look at a pipeline file without running it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

_FILE = click.argument("file", metavar="PIPELINE.yaml", type=click.Path(path_type=Path))
_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


@click.group()
def command() -> None:
    """Check a pipeline file, run its tests, print its schema."""


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
def schema() -> None:
    r"""Print the JSON Schema of pipeline files, for editors.

    \b
    Example:
      inferloop pipeline schema > pipeline.schema.json
    """
    from inferloop.streams.schema import pipeline_schema

    click.echo(json.dumps(pipeline_schema(), indent=2))
