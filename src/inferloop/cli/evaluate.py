"""`inferloop evaluate`: how good models are on a data set."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from inferloop.core.report import Report
    from inferloop.data.datasets.dataset import Dataset


@click.command()
@click.argument("models", metavar="MODEL...", nargs=-1, required=True)
@click.option("--data", required=True, help="A table, archive or folder of labeled rows, or a YAML file that describes one.")
@click.option(
    "--column", "columns", multiple=True, metavar="KEY=COLUMN", help="Which column is what: text=message, label=intent."
)
@click.option("--gate", "gates", multiple=True, metavar="CONDITION", help="What must hold, e.g. accuracy>=0.97; several times.")
@click.option("--target", default="onnxruntime:cpu:f32@1", show_default=True, help="Where the models run.")
@click.option("--report", "report_path", type=click.Path(path_type=Path), help="Write everything, with plots, as .html or .json.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def command(
    ctx: click.Context,
    models: tuple[str, ...],
    data: str,
    columns: tuple[str, ...],
    gates: tuple[str, ...],
    target: str,
    report_path: Path | None,
    as_json: bool,
) -> None:
    r"""Measure accuracy, calibration and latency of MODELs; the exit code is 1 if a gate fails.

    With several models each is compared with the first, row by row.

    \b
    Examples:
      inferloop evaluate refunds@champion --data test.csv --gate "accuracy>=0.8"
      inferloop evaluate refunds:1 refunds:2 --data test.csv --column text=message --report compared.html
    """
    from inferloop.core.target import Target
    from inferloop.evaluation.evaluate import evaluate, resolved

    bundles = resolved(models)
    dataset = _dataset(data, columns, kinds=bundles[0].manifest.transforms.fields)
    report = evaluate(bundles, dataset, gates, target=Target.parse(target))
    show(report, as_json=as_json, path=report_path)
    ctx.exit(0 if report.passed else 1)


def show(report: Report, *, as_json: bool, path: Path | None) -> None:
    """Print a Report, and write it to a file if one is wanted."""
    from inferloop.core.report_text import text

    if path is not None:
        report.save(path)
    click.echo(report.to_json() if as_json else text(report))


def _dataset(data: str, pairs: tuple[str, ...], *, kinds: Mapping[str, str]) -> Dataset:
    """The data set; a column that is named by a field of the model brings that field."""
    from inferloop.data.config import read_yaml
    from inferloop.data.datasets.dataset import Dataset
    from inferloop.data.datasets.spec import DatasetSpec

    path = Path(data)
    source: dict[str, Any] = dict(read_yaml(path)) if path.suffix in {".yaml", ".yml"} else {"path": path}
    fields: dict[str, Any] = dict(source.pop("fields", None) or {})
    for key, column in map(_pair, pairs):
        if key in kinds and key not in DatasetSpec.model_fields:
            fields[key] = {"kind": kinds[key], "columns" if isinstance(column, list) else "column": column}
        else:
            source[key] = column
    return Dataset.load({**source, "fields": fields} if fields else source)


def _pair(text: str) -> tuple[str, str | list[str]]:
    """`KEY=COLUMN`; several columns are separated by commas, and `f*` stands for all that start with f."""
    from inferloop.core.errors import InvalidInput

    key, sign, column = text.partition("=")
    if not sign or not key or not column:
        raise InvalidInput(f"column {text!r} is not KEY=COLUMN", hint="e.g. --column text=message --column label=intent")
    return key, column.split(",") if "," in column or "*" in column else column
