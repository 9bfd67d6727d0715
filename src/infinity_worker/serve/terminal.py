"""What `serve` shows while it runs: a live line for each worker on a terminal, else plain lines."""

import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from rich.console import Console
from rich.live import Live
from rich.table import Table

from infinity_worker.edge.report import EdgeReport, WorkerReport
from infinity_worker.serve.fleet import Slot

COLUMNS = ("worker", "state", "jobs", "now", "items/s", "p50", "p95", "engine")
_REDRAW_S = 0.5
_RATE_WINDOW_S = 5.0


class View(Protocol):
    """Where events and figures are shown."""

    @property
    def is_live(self) -> bool:
        """Whether the workers' own lines must come through `say`, to stand above the figures."""

    def say(self, line: str) -> None:
        """Print a line. Any thread may call this."""

    def show(self, slots: Sequence[Slot], report: EdgeReport, shared_rss: int) -> None:
        """Show how the workers are doing.

        Args:
            slots: The workers' places.
            report: What the edge knows of them.
            shared_rss: Bytes of memory of the engine that they share.
        """


@contextmanager
def open_view() -> Iterator[View]:
    """The view that suits standard output."""
    if not sys.stdout.isatty():
        yield PlainView()
        return
    console = Console(highlight=False)
    with Live(console=console, auto_refresh=False) as live:
        yield LiveView(console, live)


class PlainView:
    """Events as lines; figures are for terminals."""

    is_live = False

    def say(self, line: str) -> None:
        """Print a line."""
        print(line, flush=True)

    def show(self, slots: Sequence[Slot], report: EdgeReport, shared_rss: int) -> None:
        """Show nothing."""


class LiveView:
    """A table that stays at the bottom of the terminal."""

    is_live = True

    def __init__(self, console: Console, live: Live) -> None:
        self._console = console
        self._live = live
        self._rates: dict[int, Rate] = {}
        self._drawn_at = 0.0

    def say(self, line: str) -> None:
        """Print a line above the table."""
        self._console.print(line, markup=False, soft_wrap=True)

    def show(self, slots: Sequence[Slot], report: EdgeReport, shared_rss: int) -> None:
        """Draw the table anew, now and then."""
        now = time.monotonic()
        if now - self._drawn_at < _REDRAW_S:
            return
        self._drawn_at = now
        table = Table(*COLUMNS, box=None, pad_edge=False)
        for slot in slots:
            told = slot.report(report)
            rate = self._rates.setdefault(slot.number, Rate())
            items_s = rate.per_second(slot.worker_id, told.items, now)
            rss = slot.engine_rss or shared_rss
            table.add_row(*cells(slot.number, slot.state(report), told, items_s, rss))
        self._live.update(table, refresh=True)


@dataclass(slots=True)
class _Sample:
    at: float
    count: int


class Rate:
    """How fast a count grows, over the last seconds."""

    def __init__(self) -> None:
        self._name = ""
        self._samples: deque[_Sample] = deque()

    def per_second(self, name: str, count: int, now: float) -> float:
        """Take in a reading; another name starts anew."""
        if name != self._name:
            self._name = name
            self._samples.clear()
        self._samples.append(_Sample(now, count))
        while now - self._samples[0].at > _RATE_WINDOW_S:
            self._samples.popleft()
        first = self._samples[0]
        return (count - first.count) / (now - first.at) if now > first.at else 0.0


def cells(number: int, state: str, told: WorkerReport, items_s: float, rss: int) -> tuple[str, ...]:
    """One worker's row, as `COLUMNS` names it."""
    return (
        str(number),
        f"{state}: {told.failed_check}" if told.failed_check else state,
        str(told.jobs),
        str(told.in_progress),
        f"{items_s:.0f}",
        _milliseconds(told.p50_s),
        _milliseconds(told.p95_s),
        f"{rss / 1e6:.0f} MB" if rss else "",
    )


def _milliseconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds * 1e3:.0f} ms"
