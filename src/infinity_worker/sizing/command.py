"""`infinity-worker plan`: prints what to set for a load."""

import argparse
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from infinity_worker.sizing.costs import EngineCost, Gpu, SizingError, read_costs, read_gpus
from infinity_worker.sizing.plan import Aims, Load, Plan, plan
from infinity_worker.sizing.simulation import Endpoint, Outcome, Simulation

_SIMULATED_S = 600.0
_MOST_JOBS = 300_000


def register(commands: Any) -> None:
    """Add `plan` to the subparsers of the command line."""
    parser = commands.add_parser("plan", help="how many workers a load needs, with which settings")
    add_arguments(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the plan; the result is the exit status."""
    try:
        for line in lines(arguments):
            print(line)
    except SizingError as error:
        print(f"infinity-worker: {error}", file=sys.stderr)
        return 1
    return 0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    load, aims = Load(1.0), Aims()
    add = parser.add_argument
    add("--model", help="its name in the file of costs")
    add("--costs", type=Path, help="a TOML file of models' costs (python -m bench --costs)")
    add("--request-ms", type=float, help="instead of --costs: each engine request")
    add("--item-ms", type=float, help="… and each text in it, in milliseconds")
    add("--token-ms", type=float, default=0.0, help="… and each token")
    add("--gpus", type=Path, help="a TOML file of GPUs: price_per_s and speed")
    add("--rate", type=float, required=True, help="requests a second")
    add("--items", type=int, default=load.items, help="texts in a request (%(default)s)")
    add("--tokens", type=float, default=load.tokens, help="tokens of a text (%(default)s)")
    add("--utilisation", type=float, default=aims.utilisation, help="aimed at (%(default)s)")
    add("--max-wait", type=float, default=aims.max_wait_s, help="s in a full worker (%(default)s)")
    add("--cold-start", type=float, default=aims.cold_start_s, help="seconds (%(default)s)")
    add("--batch-items", type=int, default=aims.batch_items, help="of a request (%(default)s)")
    add("--simulate", action="store_true", help="ten minutes of this load at most, from no worker")


def lines(arguments: argparse.Namespace) -> Iterator[str]:
    """Yield the lines to print: the cheapest kind of machine first.

    Raises:
        SizingError: a file or a figure cannot be used.
    """
    load = Load(arguments.rate, arguments.items, arguments.tokens)
    aims = Aims(
        arguments.utilisation, arguments.max_wait, arguments.cold_start, arguments.batch_items
    )
    cost = _cost(arguments)
    gpus = read_gpus(arguments.gpus) if arguments.gpus else [Gpu("this machine", 0.0)]
    plans = sorted((plan(load, cost, gpu, aims) for gpu in gpus), key=lambda p: p.cost_per_hour)
    for each in plans:
        yield from _describe(each)
        if arguments.simulate:
            yield _summary(each, simulate(each, load, cost, aims))


def simulate(chosen: Plan, load: Load, cost: EngineCost, aims: Aims, *, seed: int = 1) -> Outcome:
    """Simulate the plan under its load with random (Poisson) arrivals, starting with no worker."""
    arrivals, dice, moment = [], random.Random(seed), 0.0  # noqa: S311  # arrivals, not secrets
    until = min(_SIMULATED_S, _MOST_JOBS / load.rate)
    while (moment := moment + dice.expovariate(load.rate)) < until:
        arrivals.append((moment, load.items))
    endpoint = Endpoint(
        cost.on(chosen.gpu.speed, load.tokens),
        concurrency=chosen.concurrency,
        batch_items=max(aims.batch_items, load.items),
        cold_start_s=aims.cold_start_s,
        idle_timeout_s=chosen.idle_timeout_s,
        max_workers=2 * chosen.workers,
        requests_per_worker=chosen.requests_per_worker,
    )
    return Simulation(endpoint, arrivals or [(0.0, load.items)]).run()


def _cost(arguments: argparse.Namespace) -> EngineCost:
    if arguments.costs:
        costs = read_costs(arguments.costs)
        name = arguments.model or (next(iter(costs)) if len(costs) == 1 else "")
        if name not in costs:
            raise SizingError(f"--model must be one of {', '.join(costs)}")
        return costs[name]
    if arguments.request_ms is None or arguments.item_ms is None:
        raise SizingError("give --costs FILE, or --request-ms and --item-ms")
    return EngineCost(arguments.request_ms, arguments.item_ms, arguments.token_ms)


def _describe(each: Plan) -> Iterator[str]:
    name, plural = each.gpu.name, "s" if each.workers > 1 else ""
    yield f"{name}: {each.workers} worker{plural}, {each.cost_per_hour:.2f} an hour while all run"
    yield f"  one takes {each.capacity:,.1f} requests/s at most; {each.utilisation:.0%} of it come"
    yield f"  about {each.latency_s * 1e3:,.0f} ms a request; {each.batch:.1f} texts go together"
    yield f"  RUNPOD_MAX_CONCURRENCY={each.concurrency}"
    yield f"  scaler: request count, {each.requests_per_worker}; max workers {2 * each.workers}"
    yield f"  idle timeout: {each.idle_timeout_s} s"


def _summary(each: Plan, outcome: Outcome) -> str:
    return (
        f"  simulated for {outcome.end_s:,.0f} s, from no worker: "
        f"p50 {outcome.percentile(0.5) * 1e3:,.0f} ms, "
        f"p95 {outcome.percentile(0.95) * 1e3:,.0f} ms, {outcome.cold_starts} cold starts, "
        f"{outcome.worker_s / outcome.end_s:.1f} workers on average, "
        f"{outcome.worker_s * each.gpu.price_per_s:.4f} to pay"
    )
