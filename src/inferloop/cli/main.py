"""The entry point: verbs in sections, imported only when they are called; logging; errors and exit codes."""

from __future__ import annotations

import difflib
import importlib
import os
import select
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import click

from inferloop.cli import logs
from inferloop.cli.errors import INTERRUPTED, explain
from inferloop.cli.verbs import SECTIONS, VERBS
from inferloop.core.errors import Unavailable


@dataclass(slots=True)
class Settings:
    """What the options before the verb said."""

    debug: bool = False


class UnknownVerb(click.UsageError):
    """A verb that the table does not have; the hint names the nearest."""

    def __init__(self, name: str, ctx: click.Context) -> None:
        super().__init__(f"no verb named {name!r}", ctx)
        near = difflib.get_close_matches(name, VERBS, n=1)
        self.hint = f"did you mean `inferloop {near[0]}`?" if near else f"known: {', '.join(VERBS)}"


class Verbs(click.Group):
    """The verbs by section. A verb's module is imported when the verb is called, not before."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """See `click.Group.list_commands`."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        """See `click.Group.get_command`."""
        verb = VERBS.get(cmd_name)
        if verb is None:
            return None
        return _with_examples(importlib.import_module(verb.module).command)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        """See `click.Group.resolve_command`."""
        name = args[0]
        if name.startswith("-"):
            raise click.NoSuchOption(name, ctx=ctx)
        if name not in VERBS:
            raise UnknownVerb(name, ctx)
        return name, self.get_command(ctx, name), args[1:]

    def invoke(self, ctx: click.Context) -> Any:
        """See `click.Group.invoke`. A reader of our output that has left is the end, not a failure."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            if _reader_left():  # `inferloop ... | head`: it has seen enough
                return 0
            raise Unavailable("a connection broke: broken pipe", hint="try again") from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's signature
        """See `click.Group.format_commands`."""
        width = max(map(len, VERBS))
        for section, verbs in SECTIONS.items():
            with formatter.section(section):
                formatter.write_dl([(name.ljust(width), verb.summary) for name, verb in verbs.items()])


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="inferloop", message="inferloop %(version)s")
@click.option("--log-level", type=click.Choice(logs.LEVELS), help="What is logged on stderr; verbs that run on and on: info.")
@click.option("--log-format", type=click.Choice(logs.FORMATS), default="text", show_default=True, help="Form of the log.")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.pass_context
def root(ctx: click.Context, log_level: str | None, log_format: str, debug: bool) -> None:
    """From training to action and back: train, serve and stream deep networks on live data, and keep them learning."""
    verb = VERBS.get(ctx.invoked_subcommand or "")
    logs.configure(log_level or (verb.log_level if verb else "warning"), log_format)
    ctx.ensure_object(Settings).debug = debug


def _with_examples(command: click.Command) -> click.Command:
    """Let a backslash and a b in a raw docstring mean what click means by it: keep the lines of the next paragraph."""
    command.help = (command.help or "").replace("\\b\n", "\b\n")
    for child in command.commands.values() if isinstance(command, click.Group) else ():
        _with_examples(child)
    return command


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command line.

    Args:
        arguments: what follows `inferloop`; the process's own arguments if None.

    Returns:
        The exit code: 0 done; 1 the answer is no; 2 command, config or input is wrong; 3 the machine or a service let us
        down; 130 interrupted.
    """
    settings = Settings()
    try:
        result = root.main(args=arguments, prog_name="inferloop", standalone_mode=False, obj=settings)
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted", err=True)
        return INTERRUPTED
    except SystemExit as stop:
        if isinstance(stop.__context__, BrokenPipeError):  # rich has met a reader that left
            return 0
        raise
    except Exception as error:  # the last stop: whatever it is, the user gets lines and an exit code
        failure = explain(error, debug=settings.debug)
        failure.print()
        return failure.exit_code
    return result if type(result) is int else 0


def main() -> None:
    """The console script."""
    code = run()
    try:
        if sys.stdout is not None:  # closed by the caller: `inferloop ... >&-`
            sys.stdout.flush()
    except BrokenPipeError:
        _discard_output()
    sys.exit(code)


def _reader_left() -> bool:
    """Whether it is standard output that broke, and no connection to somewhere else."""
    try:
        poll = select.poll()
        poll.register(sys.stdout.fileno(), 0)  # errors are told unasked
        return bool(poll.poll(0))
    except (AttributeError, ValueError, OSError):  # Windows has no poll; a stand-in for stdout has no number
        return True


def _discard_output() -> None:
    """Nobody reads standard output any more; without this the interpreter complains of it at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
