"""Tables for the terminal and for docs/performance.md, and the figures as JSON."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import orjson

from bench.grid import Result
from bench.measure import Sample

_DIGITS = 3
Row = list[str]

COLUMNS = (
    "measured",
    "through",
    "p50 ms",
    "p95 ms",
    "p99 ms",
    "jobs/s",
    "texts/s",
    "worker CPU ms/job",
    "kB out/job",
    "engine req/job",
    "peak RSS MB",
    "CPU % worker/engine/edge/others",
    "jobs",
)


def rows_of(results: Sequence[Result]) -> list[Row]:
    """A row for each variant of each cell, and one for each ratio of ours to another."""
    rows = []
    for result in results:
        texts = int(result.cell.split(maxsplit=1)[0])
        rows += [
            _row(result.cell, variant, sample, texts) for variant, sample in result.medians.items()
        ]
        # What matters is how the worker compares with everything else.
        measured = next((name for name in ("http", "ours") if name in result.medians), None)
        if measured is not None:
            rows += [
                _ratio(f"{measured} : {other}", result.medians[measured], sample)
                for other, sample in result.medians.items()
                if other != measured
            ]
    return rows


def _row(cell: str, variant: str, sample: Sample, texts: int) -> Row:
    shares = (
        sample.worker_share,
        sample.engine_share,
        sample.edge_share,
        sample.others_share,
    )
    return [
        cell,
        variant,
        *(number(value) for value in (sample.p50_ms, sample.p95_ms, sample.p99_ms)),
        number(sample.jobs_per_s),
        number(sample.jobs_per_s * texts),
        number(sample.worker_cpu_ms),
        number(sample.kb_out),
        number(sample.engine_requests),
        number(sample.peak_rss_mb),
        "/".join("–" if share is None else f"{share:.0%}".rstrip("%") for share in shares),
        number(sample.completed),
    ]


def _ratio(title: str, ours: Sample, other: Sample) -> Row:
    def faster(figure: Callable[[Sample], float | None], *, less_is_better: bool) -> str:
        mine, its = figure(ours), figure(other)
        if not mine or not its:
            return ""
        return f"{number(its / mine if less_is_better else mine / its)}×"

    return [
        "",
        title,
        faster(lambda sample: sample.p50_ms, less_is_better=True),
        faster(lambda sample: sample.p95_ms, less_is_better=True),
        faster(lambda sample: sample.p99_ms, less_is_better=True),
        faster(lambda sample: sample.jobs_per_s, less_is_better=False),
        faster(lambda sample: sample.jobs_per_s, less_is_better=False),
        faster(lambda sample: sample.worker_cpu_ms, less_is_better=True),
        *[""] * 5,
    ]


def floors_of(results: Sequence[Result]) -> list[str]:
    """A line for each workload: the engine's own latency, and what the worker adds to it."""
    lines = []
    for result in results:
        if result.floor is None:
            continue
        own = result.floor["p50_ms"]
        added = ", ".join(
            f"{variant} {number(sample.p50_ms - own)} ms over it"
            for variant, sample in result.medians.items()
        )
        lines.append(f"{result.cell}: the engine alone p50 {number(own)} ms; {added}")
    return lines


def number(value: float | None) -> str:
    """Three digits, or all that stand before the point."""
    if value is None:
        return "–"
    if abs(value) >= 10**_DIGITS:
        return f"{value:,.0f}"
    return f"{value:.{_DIGITS}g}"


def terminal_table(columns: Sequence[str], rows: Sequence[Row]) -> str:
    """Columns padded to their widest cell."""
    widths = [max(len(row[at]) for row in [list(columns), *rows]) for at in range(len(columns))]
    lines = [
        "  ".join(
            cell.ljust(width) if at < 2 else cell.rjust(width)  # noqa: PLR2004  # names, figures
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in [list(columns), *rows]
    ]
    return "\n".join(lines)


def markdown_table(columns: Sequence[str], rows: Sequence[Row]) -> str:
    """The same for documents."""
    marks = ["---" if at < 2 else "---:" for at in range(len(columns))]  # noqa: PLR2004  # likewise
    return "\n".join("| " + " | ".join(row) + " |" for row in [list(columns), marks, *rows])


def machine_line(machine: Mapping[str, str]) -> str:
    """The machine in a sentence."""
    first = ("cpu", "cores", "memory", "kernel", "python")
    packages = ", ".join(f"{name} {machine[name]}" for name in machine if name not in first)
    return (
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory']}, {machine['kernel']}, "
        f"{machine['python']}; {packages}"
    )


class Report:
    """Collects the sections of a run, prints them, and writes them to a folder."""

    def __init__(self, machine: Mapping[str, str]) -> None:
        self._machine = machine
        self._markdown = [f"Machine: {machine_line(machine)}."]
        self._data: dict[str, object] = {"machine": machine}

    def add(self, key: str, title: str, results: Sequence[Result], notes: str) -> None:
        """Add a section of results."""
        rows, floors = rows_of(results), floors_of(results)
        print(f"\n{title}\n\n{terminal_table(COLUMNS, rows)}\n")
        print("\n".join([*floors, notes]))
        listed = "\n".join(f"- {line}" for line in floors)
        table = markdown_table(COLUMNS, rows)
        self._markdown += [part for part in (f"## {title}", table, listed, notes) if part]
        self._data[key] = [
            {
                "cell": result.cell,
                "floor": result.floor,
                "median": {name: each.as_dict() for name, each in result.medians.items()},
                "rounds": {
                    name: [sample.as_dict() for sample in samples]
                    for name, samples in result.rounds.items()
                },
            }
            for result in results
        ]

    def add_figures(self, key: str, title: str, figures: Mapping[str, float]) -> None:
        """Add a section of named figures."""
        rows = [[name, number(value)] for name, value in figures.items()]
        print(f"\n{title}\n\n{terminal_table(('figure', 'value'), rows)}")
        self._markdown += [f"## {title}", markdown_table(("figure", "value"), rows)]
        self._data[key] = figures

    def write(self, folder: Path) -> None:
        """Write `results.json` and `performance.md`."""
        folder.mkdir(parents=True, exist_ok=True)
        text = orjson.dumps(self._data, option=orjson.OPT_INDENT_2)
        (folder / "results.json").write_bytes(text + b"\n")
        (folder / "performance.md").write_text("\n\n".join(self._markdown) + "\n")
