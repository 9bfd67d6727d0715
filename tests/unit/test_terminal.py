"""What `serve` shows on a terminal."""

import io

import pytest
from rich.console import Console
from rich.live import Live

from infinity_worker.edge.report import EdgeReport, WorkerReport, WorkerState, percentile
from infinity_worker.serve.fleet import Slot
from infinity_worker.serve.terminal import LiveView, Rate, cells

BUSY = WorkerReport(WorkerState.RUNNING, "", 3, 1200, 5000, 0.0, 0.0123, 0.4567)
SICK = WorkerReport(WorkerState.UNHEALTHY, "gpu")
ROWS = [
    (BUSY, ("0", "running", "1200", "3", "80", "12 ms", "457 ms", "512 MB")),
    (SICK, ("0", "unhealthy: gpu", "0", "0", "80", "", "", "512 MB")),
]


@pytest.mark.parametrize(("told", "row"), ROWS)
def test_a_worker_is_a_line(told: WorkerReport, row: tuple[str, ...]) -> None:
    assert cells(0, told.state.value, told, 80.4, 512_000_000) == row


def test_a_rate_is_that_of_the_last_seconds_and_starts_anew_with_a_new_worker() -> None:
    rate = Rate()
    assert rate.per_second("a", 100, 0.0) == 0.0
    assert rate.per_second("a", 150, 1.0) == 50.0
    assert rate.per_second("a", 150, 5.5) == 0.0
    assert rate.per_second("b", 10, 6.0) == 0.0
    assert rate.per_second("b", 30, 8.0) == 10.0


@pytest.mark.parametrize(
    ("values", "share", "value"),
    [([], 0.5, None), ([7], 0.95, 7), ([1, 2], 0.5, 1), (list(range(1, 101)), 0.95, 95)],
)
def test_percentiles(values: list[float], share: float, value: float | None) -> None:
    assert percentile(values, share) == value


def test_the_live_lines_and_what_is_said_above_them() -> None:
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=100, highlight=False)
    with Live(console=console, auto_refresh=False) as live:
        view = LiveView(console, live)
        view.show([Slot(0, "w")], EdgeReport(None, {}), 0)
        view.say("[not markup] worker 0 starts again")
    shown = file.getvalue()
    assert "items/s" in shown
    assert "stopped" in shown
    assert "[not markup] worker 0 starts again" in shown
