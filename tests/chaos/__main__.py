"""Let everything go wrong under load, and print what became of the jobs.

Exit status 1 if a job was lost, or answered wrongly or twice.
"""

import argparse
import asyncio
import fnmatch
import sys
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import astuple

from bench.machine import describe_machine
from chaos.load import Verdict
from chaos.measure import FULL, SHORT, Outcome, run_suite
from chaos.scenarios import SUITES

COLUMNS = (
    *("mode", "what goes wrong", "jobs", "right", "errors", "lost", "wrong", "twice"),
    *("posted again", "handed on", "recovery", "own load", "and again"),
)


def main() -> int:
    """Run what the arguments ask for.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--short", action="store_true", help="as in `make test`")
    parser.add_argument("--only", default="*", metavar="PATTERN", help="as in '*worker*'")
    parser.add_argument("--mode", default="*", metavar="PATTERN", help="queue or http; both")
    options = parser.parse_args()
    machine = describe_machine()
    print(", ".join(f"{name} {machine[name]}" for name in ("cpu", "cores", "memory", "python")))
    print_row(COLUMNS)
    print_row(["---"] * len(COLUMNS))
    outcomes = asyncio.run(run(options.mode, options.only, short=options.short))
    for outcome in outcomes:
        for fault in outcome.faults():
            print(f"{outcome.scenario.name}: {fault}", file=sys.stderr)
    return int(any(fault for outcome in outcomes for fault in outcome.faults()))


async def run(mode: str, pattern: str, *, short: bool) -> list[Outcome]:
    """Run the scenarios whose modes and names match, printing their rows."""
    outcomes: list[Outcome] = []
    for suite in SUITES.values():
        scenarios = suite.short if short else suite.full
        chosen = [each for each in scenarios if fnmatch.fnmatch(each.name, pattern)]
        if not (chosen and fnmatch.fnmatch(suite.mode, mode)):
            continue
        plan = SHORT if short else FULL
        async with aclosing(run_suite(suite, plan, chosen, quick=short)) as found:
            async for outcome in found:
                print_row([suite.mode, *row(outcome)])
                outcomes.append(outcome)
    return outcomes


def row(outcome: Outcome) -> Sequence[object]:
    """What `COLUMNS` names after the mode."""
    found = outcome.verdicts
    codes = ", ".join(str(code) for code in sorted(outcome.codes))
    lasted = f", for {outcome.lasted_s:g} s" if outcome.lasted_s else ""
    return (
        outcome.scenario.name + lasted,
        f"{outcome.sent:,}",
        f"{found[Verdict.RIGHT]:,}",
        f"{found[Verdict.ERROR]:,} ({codes})" if codes else "0",
        str(outcome.lost()),
        str(found[Verdict.WRONG]),
        *(astuple(outcome.deliveries) if outcome.deliveries else ("", "", "")),
        _seconds(outcome.recovery_s),
        _seconds(outcome.load_s),
        _seconds(outcome.reload_s),
    )


def print_row(cells: Sequence[object]) -> None:
    """Print a line of a Markdown table."""
    print(f"| {' | '.join(map(str, cells))} |", flush=True)


def _seconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds:.1f} s"


if __name__ == "__main__":
    sys.exit(main())
