"""`inferloop train`: a training file -> a Bundle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import click

if TYPE_CHECKING:
    from rich.progress import TaskID

    from inferloop.core.report import Report
    from inferloop.training.train import TrainResult


@click.command()
@click.argument("config", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--name", help="The model's name, instead of the one in CONFIG.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write the bundle there instead of registering it.")
@click.option("--seed", type=int, help="Instead of the one in CONFIG.")
@click.option("--resume", is_flag=True, help="Continue the interrupted training of this config and these data.")
@click.option("--report", "report_path", type=click.Path(path_type=Path), help="Write curves and tables as .html or .json.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(
    config: Path, name: str | None, output: Path | None, seed: int | None, resume: bool, report_path: Path | None, as_json: bool
) -> None:
    r"""Train the network that CONFIG describes; the result is a bundle in the registry.

    Ctrl-C saves the state; the same command with --resume continues bit by bit.

    \b
    Example:
      inferloop train intents.yaml
      inferloop train intents.yaml --name intents-2 --seed 1 -o build/intents
    """
    import json

    from inferloop.training.config import TrainConfig
    from inferloop.training.train import train

    settings = TrainConfig.load(config, name=name, seed=seed)
    with Bars() as bars:
        result = train(settings, output=output, resume=resume, observer=bars.show)
    if report_path is not None:
        result.report.save(report_path)
    if as_json:
        click.echo(json.dumps({**result.report.to_dict(), "bundle": _place(result)}, default=str))
        return
    _print(result.report)
    click.echo(f"bundle: {_place(result)}")


class Bars:
    """Progress bars on stderr: one for the stage or epoch under way; lines for finished epochs."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns, console=Console(stderr=True), transient=True)
        self._task: TaskID | None = None
        self._name = ""

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    def show(self, event: Any) -> None:
        """Move the bar. See `training.watch.Observer`."""
        from inferloop.training.watch import Stage

        if isinstance(event, Stage):
            self._move(event.name, event.done, event.total)
            return
        self._move(f"epoch {event.epoch + 1}/{event.epochs}", event.step, event.steps)
        if event.validation is not None:
            judged = event.validation
            self._progress.console.print(
                f"epoch {event.epoch + 1}/{event.epochs}  loss {event.loss:.4f}  "
                f"validation: loss {judged.loss:.4f}, accuracy {judged.accuracy:.4f}, macro-F1 {judged.macro_f1:.4f}",
                highlight=False,
                soft_wrap=True,
            )

    def _move(self, name: str, done: int, total: int) -> None:
        if self._task is None or name != self._name:
            if self._task is not None:
                self._progress.remove_task(self._task)
            self._task, self._name = self._progress.add_task(name, total=total), name
        self._progress.update(self._task, completed=done, total=total)


def _place(result: TrainResult) -> str:
    bundle = result.bundle
    return f"{bundle.name}:{bundle.version}" if bundle.version else str(bundle.path)


def _print(report: Report) -> None:
    click.echo(report.title)
    for name, value in report.figures.items():
        click.echo(f"  {name:18} {value:.4f}" if value < 10 else f"  {name:18} {value:.1f}")
    for note in report.notes:
        click.echo(f"  {note}")
