"""Measure the worker, print tables, and write them down.

Without an option that names a part: the worker between a stand-in engine and a bare edge, under the
SDK's loop and the project's, in about three minutes.
"""

import argparse
import fnmatch
import sys
from collections.abc import Sequence
from pathlib import Path

import uvloop

from bench import grid, over_http, real
from bench.allocator import keep_freed_memory
from bench.cold_start import run_cold_start
from bench.costs import run_costs, write_costs
from bench.machine import describe_machine
from bench.processes import ProcessFailedError
from bench.report import Report
from bench.soak import run_soak
from bench.workload import WrongAnswerError
from infinity_worker.engine import EngineStartError

_OUT = Path(__file__).parent / "results"
_SOAK_S = 30.0
_COLD_STARTS = 3
_SOAK_BY_JOBS_S = 600.0
_VARIANTS = "stock,stock-default,ours,apart"
_NOTES = {
    "standin": (
        "Latency: from the moment a job is available at the edge to the moment its result has "
        "arrived there in full. Each figure is the median over the rounds. `stock` is the SDK's "
        "own loop with 1,000 slots, which suits it best; `stock-default` the same with the slots "
        "that `ours`, the project's loop, has by default. `apart` is `ours` where the model's "
        "tokenizer is not known, so that no jobs share an engine request and none are counted."
    ),
    "ceiling": (
        "`bare` takes jobs, passes on the engine's answer and does nothing else, over raw "
        "connections on uvloop: what the edge, the engine and this machine allow."
    ),
    "http": (
        "`http` is the worker as an HTTP server, `ours` the same worker behind a queue, `direct` "
        "the engine itself; one and the same client asks `http` and `direct`."
    ),
    "real": "`direct` is an HTTP client that asks the same engine process for the same texts.",
}


def main() -> int:
    """Run what the arguments ask for.

    Returns:
        The exit status: 1 if a process failed or an answer was wrong.
    """
    options = _parser().parse_args()
    keep_freed_memory()
    try:
        uvloop.run(_run(options))
    except (ProcessFailedError, WrongAnswerError, EngineStartError) as error:
        print(f"the benchmark failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    add = parser.add_argument
    add("--quick", action="store_true", help="one short round of each: to see that it runs")
    add("--real", action="store_true", help="the real engine, directly and through the worker")
    add("--http", action="store_true", help="as an HTTP server, on stand-in and real engine")
    add("--ceiling", action="store_true", help="what the harness itself allows")
    add("--cold-start", action="store_true", help="the first answer, against the engine's own")
    add("--costs", action="store_true", help="of a request, for infinity-worker plan")
    add("--all", action="store_true", help="all of these and the soak")
    add("--soak", type=float, nargs="?", const=_SOAK_S, metavar="SECONDS", help="full rate")
    add("--jobs", type=int, metavar="N", help="a soak of so many jobs instead of seconds")
    add("--only", default="*", metavar="PATTERN", help="cells by name, as in '*, 32 clients'")
    add("--variants", default=_VARIANTS, metavar="NAMES", help="of the worker")
    add("--out", type=Path, default=_OUT, metavar="DIR", help="folder for the results")
    return parser


async def _run(options: argparse.Namespace) -> None:
    report = Report(describe_machine())
    names_soak = options.soak is not None or options.jobs is not None
    parts = (
        options.real,
        options.ceiling,
        options.cold_start,
        options.costs,
        options.http,
        names_soak,
    )
    names_none = not any(parts)
    if options.all or names_none:
        chosen = _choose(grid.cells(), options)
        results = await grid.run_grid(chosen, options.variants.split(","))
        report.add("standin", "Stand-in engine", results, _NOTES["standin"])
        report.write(options.out)
    if options.all or options.ceiling:
        results = await grid.run_grid(_choose(grid.ceiling_cells(), options), ["bare"])
        report.add("ceiling", "What the harness allows", results, _NOTES["ceiling"])
        report.write(options.out)
    if options.all or options.http:
        await _run_http(options, report)
    if options.all or options.real:
        for backend, name in real.BACKENDS.items():
            chosen = _choose(real.cells(backend), options)
            if not chosen:
                continue
            results = await real.run_real(backend, chosen)
            report.add(f"real-{backend}", f"Infinity, {name}", results, _NOTES["real"])
            report.write(options.out)
    await _run_figures(options, report, names_soak=names_soak)


async def _run_figures(options: argparse.Namespace, report: Report, *, names_soak: bool) -> None:
    """Run what gives named figures and no table of routes."""
    if options.all or options.cold_start:
        figures = await run_cold_start(1 if options.quick else _COLD_STARTS)
        report.add_figures("cold-start", "Cold start: MiniLM on the CPU", figures)
        report.write(options.out)
    if options.all or options.costs:
        figures = await run_costs()
        write_costs(figures, options.out)
        report.add_figures("costs", "What a request costs: MiniLM on the CPU", figures)
        report.write(options.out)
    if options.all or names_soak:
        seconds = options.soak or (_SOAK_BY_JOBS_S if options.jobs else _SOAK_S)
        figures = await run_soak(seconds, options.jobs or sys.maxsize)
        report.add_figures("soak", "Soak: 1 text, 32 clients, at full rate", figures)
        report.write(options.out)


async def _run_http(options: argparse.Namespace, report: Report) -> None:
    """The worker as an HTTP server, on both engines."""
    chosen = _choose(over_http.standin_cells(), options)
    if chosen:
        results = await over_http.run_standin(chosen)
        report.add("http-standin", "HTTP server, stand-in engine", results, _NOTES["http"])
        report.write(options.out)
    chosen = _choose(over_http.real_cells(), options)
    if chosen:
        results = await over_http.run_minilm(chosen)
        report.add("http-minilm", "HTTP server, Infinity, minilm", results, _NOTES["http"])
        report.write(options.out)


def _choose(cells: Sequence[grid.Cell], options: argparse.Namespace) -> list[grid.Cell]:
    chosen = [cell for cell in cells if fnmatch.fnmatch(cell.name, options.only)]
    return [cell.shortened() for cell in chosen] if options.quick else chosen


if __name__ == "__main__":
    sys.exit(main())
