"""A running pipeline in the terminal: what comes, what is decided, what goes out, and how long it takes."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table

if TYPE_CHECKING:
    from inferloop.streams.events import Counters

_EVERY_S = 0.5
_OVER_S = 5.0
_LATENCIES = 2000


class LiveView:
    """Draws the counters twice a second, over itself; rates are those of the last five seconds."""

    def __init__(self, pipeline: str, counters: Counters, console: Console) -> None:
        self._pipeline = pipeline
        self._counters = counters
        self._console = console
        self._seen: deque[Counter[str]] = deque(maxlen=round(_OVER_S / _EVERY_S) + 1)

    async def show_for_ever(self) -> None:
        """Draw until it is cancelled; the last state stays on the screen."""
        with Live(console=self._console, auto_refresh=False, transient=False) as live:
            try:
                while True:
                    live.update(self.drawn(), refresh=True)
                    await asyncio.sleep(_EVERY_S)
            finally:
                live.update(self.drawn(), refresh=True)

    def drawn(self) -> Group:
        """What is shown now."""
        now = self._totals()
        self._seen.append(now)
        span_s = (len(self._seen) - 1) * _EVERY_S
        before = self._seen[0]
        table = Table(title=self._pipeline, title_justify="left")
        for heading, justify in (("", "left"), ("total", "right"), ("/s", "right")):
            table.add_column(heading, justify=justify)  # type: ignore[arg-type]
        for name, total in now.items():
            table.add_row(name, f"{total:,}", f"{(total - before[name]) / span_s:,.1f}" if span_s else "")
        counters = self._counters
        p50, p99 = (counters.latency_ms(share, last=_LATENCIES) for share in (0.5, 0.99))
        waiting = counters.messages - counters.acknowledged
        return Group(table, f"{waiting:,} under way; p50 {p50:.1f} ms, p99 {p99:.1f} ms from arrival to acknowledgement")

    def _totals(self) -> Counter[str]:
        counters = self._counters
        totals = {"messages": counters.messages, "decisions": counters.decisions, "dead letters": counters.dead_letters}
        totals |= {"came again": counters.redelivered} if counters.redelivered else {}
        for title, counts in (
            ("rule", counters.rules),
            ("no action", counters.reasons),
            ("delivered", counters.delivered),
            ("stored", counters.stored),
            ("tried again", counters.retries),
            ("refused", counters.refused),
            ("failed", counters.failed),
            ("left out", counters.dropped),
        ):
            totals |= {f"{title}: {name}": count for name, count in sorted(counts.items())}
        return Counter(totals)
