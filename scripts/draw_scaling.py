"""Draw docs/scaling.svg: a burst under both of the platform's scalers, simulated.

    .venv/bin/python scripts/draw_scaling.py

Prints the table that docs/scaling.md shows beside it.
"""

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from infinity_worker.sizing.costs import ServiceTime
from infinity_worker.sizing.simulation import Endpoint, Outcome, Simulation

OUT = Path(__file__).resolve().parents[1] / "docs" / "scaling.svg"
# Requests of one text a second, each for so many seconds.
LOAD = ((0.05, 60.0), (600.0, 120.0), (0.05, 120.0))
SECONDS = sum(seconds for _, seconds in LOAD)
BASE = Endpoint(
    ServiceTime(0.003, 0.003),
    concurrency=256,
    cold_start_s=15.0,
    idle_timeout_s=15.0,
    min_workers=0,
    max_workers=6,
)
SCALERS = {
    "request count 64": (replace(BASE, requests_per_worker=64), "#1f6feb"),
    "request count 64, one always on": (
        replace(BASE, requests_per_worker=64, min_workers=1),
        "#2da44e",
    ),
    "queue delay 4 s": (BASE, "#d1242f"),
}
WIDTH, HEIGHT, LEFT, TOP, GAP = 720, 190, 64, 34, 46


def arrivals() -> list[tuple[float, int]]:
    """Random arrivals (Poisson) at the rates of `LOAD`, always the same."""
    dice, found, began = random.Random(1), [], 0.0  # noqa: S311  # arrivals, not secrets
    for rate, seconds in LOAD:
        moment = began
        while (moment := moment + dice.expovariate(rate)) < began + seconds:
            found.append((moment, 1))
        began += seconds
    return found


def panel(title: str, top: int, lines: Sequence[tuple[str, Sequence[tuple[float, float]]]]) -> str:
    """One chart: a frame with its largest value, and a line for each scaler."""
    largest = max(value for _, points in lines for _, value in points) or 1.0
    parts = [
        f'<text x="{LEFT}" y="{top - 8}" font-weight="bold">{title}</text>',
        f'<rect x="{LEFT}" y="{top}" width="{WIDTH}" height="{HEIGHT}" fill="none" stroke="#999"/>',
        f'<text x="{LEFT - 6}" y="{top + 10}" text-anchor="end">{largest:,.0f}</text>',
        f'<text x="{LEFT - 6}" y="{top + HEIGHT}" text-anchor="end">0</text>',
    ]
    for second in range(0, int(SECONDS) + 1, 60):
        x = LEFT + WIDTH * second / SECONDS
        parts.append(
            f'<text x="{x:.0f}" y="{top + HEIGHT + 14}" text-anchor="middle">{second} s</text>'
        )
    for colour, points in lines:
        drawn = " ".join(
            f"{LEFT + WIDTH * second / SECONDS:.1f},{top + HEIGHT * (1 - value / largest):.1f}"
            for second, value in points
        )
        parts.append(f'<polyline points="{drawn}" fill="none" stroke="{colour}" stroke-width="2"/>')
    return "\n".join(parts)


def main() -> None:
    """Simulate, draw, and print the table."""
    outcomes = {
        name: (Simulation(endpoint, arrivals()).run(), colour)
        for name, (endpoint, colour) in SCALERS.items()
    }
    workers = [(colour, _points(outcome, 2)) for outcome, colour in outcomes.values()]
    queued = [(colour, _points(outcome, 1)) for outcome, colour in outcomes.values()]
    second_top = TOP + HEIGHT + GAP
    bottom = second_top + HEIGHT + GAP - 10
    legend = "\n".join(
        f'<text x="{LEFT + 230 * place}" y="{bottom}" fill="{colour}">{name}</text>'
        for place, (name, (_, colour)) in enumerate(outcomes.items())
    )
    size = f'width="{LEFT + WIDTH + 24}" height="{bottom + 12}"'
    OUT.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} '
        'font-family="sans-serif" font-size="12">\n'
        '<rect width="100%" height="100%" fill="white"/>\n'
        f"{panel('Workers', TOP, workers)}\n{panel('Jobs in the queue', second_top, queued)}\n"
        f"{legend}\n</svg>\n",
        encoding="utf-8",
    )
    print("| scaler | p50 s | p95 s | cold starts | worker seconds |\n|---|---:|---:|---:|---:|")
    for name, (outcome, _) in outcomes.items():
        p50, p95 = outcome.percentile(0.5), outcome.percentile(0.95)
        print(
            f"| {name} | {p50:.2f} | {p95:.1f} | {outcome.cold_starts} | {outcome.worker_s:,.0f} |"
        )


def _points(outcome: Outcome, column: int) -> list[tuple[float, float]]:
    return [(row[0], float(row[column])) for row in outcome.timeline if row[0] <= SECONDS]


if __name__ == "__main__":
    main()
