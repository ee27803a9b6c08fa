"""What a user sees of an error: `error:` and `hint:` on stderr, and an exit code."""

from __future__ import annotations

import sys
import traceback
from dataclasses import dataclass

import click

from inferloop.core.errors import InferloopError

INTERRUPTED = 130

_WRONG_PATH = (FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError, PermissionError)


@dataclass(frozen=True, slots=True)
class Failure:
    """An error, ready to be printed.

    Attributes:
        problems: one `error:` line each.
        hint: the one `hint:` line.
        exit_code: 2 the user's command, config or input is wrong; 3 the machine or a service let us down.
    """

    problems: tuple[str, ...]
    hint: str
    exit_code: int

    def print(self) -> None:
        """Write the lines to stderr."""
        for problem in self.problems:
            click.echo(f"error: {_one_line(problem)}", err=True)
        click.echo(f"hint: {_one_line(self.hint)}", err=True)


def explain(error: Exception, *, debug: bool) -> Failure:
    """What to tell the user of an error; a defect of ours keeps its traceback for `--debug`."""
    if debug:
        traceback.print_exception(error, file=sys.stderr)
    if isinstance(error, InferloopError):
        problems = getattr(error, "problems", (error.message,))
        return Failure(problems, error.hint or _fallback(error.exit_code), error.exit_code)
    if isinstance(error, click.ClickException):
        return _of_click(error)
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        exit_code = 2 if isinstance(error, _WRONG_PATH) else 3
        return Failure((f"{where}{error.strerror.lower()}",), "check the path, its permissions and the free space", exit_code)
    hint = "this is a defect of inferloop; the same command with `inferloop --debug ...` shows where"
    return Failure((f"internal: {type(error).__name__}: {error}",), hint, 3)


def _of_click(error: click.ClickException) -> Failure:
    message = error.format_message().rstrip(".").replace("\n", " ")
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "inferloop"
    hint = getattr(error, "hint", "") or f"`{command} --help` shows what it takes"
    return Failure((message[:1].lower() + message[1:],), hint, 2)


def _fallback(exit_code: int) -> str:
    if exit_code == 2:
        return "`inferloop VERB --help` shows what a verb takes"
    return "`inferloop doctor` checks this machine"


def _one_line(text: str) -> str:
    return " ".join(text.split())
