"""What a viewer sees of a demo: sentences, and while the stream runs a live table; plain lines where there is no terminal."""

from __future__ import annotations

import asyncio
import textwrap
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table as Grid
from rich.text import Text

from inferloop.core.report import Table
from inferloop.core.report_text import table_text
from inferloop.demos.tally import Tally
from inferloop.training.watch import Stage

if TYPE_CHECKING:
    from inferloop.training.loop import Progress

_REDRAW_S = 0.25
_PLAIN_S = 3.0
_TEXT_WIDTH = 60


class Screen:
    """Writes to stderr; results of the demo go elsewhere."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True, highlight=False)
        self._started = time.monotonic()
        self._phase = self._part = ""

    def phase(self, title: str) -> None:
        """Start a part of the story."""
        self._phase = title
        self._console.print(f"\n[bold]{escape(self._clock())} {escape(title)}[/bold]")

    def say(self, text: str) -> None:
        """A line of the story, with the time; also above a live table."""
        self._console.print(f"{escape(self._clock()):>7} {escape(text)}", soft_wrap=True)

    def table(self, table: Table) -> None:
        """A table of results."""
        self._console.print(textwrap.indent(f"{table.title}\n{table_text(table)}", " " * 8), markup=False, soft_wrap=True)

    def progress(self, event: Stage | Progress) -> None:
        """How training goes: a line for every part of the work, and one for every epoch."""
        if not isinstance(event, Stage):
            if event.validation is not None:
                self.say(f"epoch {event.epoch + 1} of {event.epochs}: loss {event.loss:.3f}")
        elif event.name != self._part:
            self._part = event.name
            self.say(event.name)

    @asynccontextmanager
    async def live(self, tally: Tally, facts: Callable[[], str]) -> AsyncIterator[None]:
        """Show the tally while the block runs.

        Args:
            tally: what is shown.
            facts: a line of what else is known, asked for at each redraw.
        """
        watch = self._redraw if self._console.is_terminal else self._print_lines
        task = asyncio.create_task(watch(tally, facts))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _redraw(self, tally: Tally, facts: Callable[[], str]) -> None:
        with Live(console=self._console, auto_refresh=False, transient=True) as live:
            while True:
                live.update(self._view(tally, facts()), refresh=True)
                await asyncio.sleep(_REDRAW_S)

    async def _print_lines(self, tally: Tally, facts: Callable[[], str]) -> None:
        shown = -1
        while True:
            await asyncio.sleep(_PLAIN_S)
            if tally.settled != shown:
                shown = tally.settled
                self._console.print(f"{self._clock():>7} {escape(_figures(tally))}  {escape(facts())}", soft_wrap=True)

    def _view(self, tally: Tally, facts: str) -> Group:
        table = Grid(box=None, padding=(0, 1), expand=False)
        for column, width in (
            ("topic", 13),
            ("message", _TEXT_WIDTH),
            ("label", 12),
            ("score", 5),
            ("decision", 10),
            ("truth", 12),
        ):
            table.add_column(column, width=width, no_wrap=True, overflow="ellipsis")
        for each in tally.recent:
            style = "" if each.label == each.truth else "yellow"
            cells = (each.topic, each.text, each.label, f"{each.score:.2f}", each.action, each.truth)
            table.add_row(*(Text(cell) for cell in cells), style=style)
        return Group(Text(f"{self._clock()} {self._phase}", style="bold"), table, Text(_figures(tally)), Text(facts))

    def _clock(self) -> str:
        seconds = int(time.monotonic() - self._started)
        return f"{seconds // 60:3}:{seconds % 60:02}"


def _figures(tally: Tally) -> str:
    actions = "  ".join(f"{name} {count}" for name, count in sorted(tally.actions.items()))
    return (
        f"messages {tally.settled}  {actions}  dead letters {len(tally.rejected)}  model v{tally.version}"
        f"  p50 {tally.percentile_ms(0.5):.0f} ms  p99 {tally.percentile_ms(0.99):.0f} ms"
    )
