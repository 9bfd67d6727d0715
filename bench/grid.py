"""The grid: workloads and clients, under the SDK's loop and under the project's, in turn."""

from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace

from bench.closed_loop import Plan
from bench.measure import Engine, Route, Sample, ThroughWorker, floor, measure, median
from bench.measuring_edge import MeasuringEdge
from bench.processes import running_standin, running_worker
from bench.vectors import MODELS
from bench.workload import Workload, WrongAnswerError
from infinity_worker.demo.models import demo_settings

_BULK_CLIENTS = 4
_COMPARED_CLIENTS = 32
# Requests that show the engine's own latency, by the texts of each.
FLOOR_REQUESTS = {1: 2_000, 512: 200}


@dataclass(frozen=True)
class Cell:
    """One workload with so many clients.

    Attributes:
        workload: what the clients send.
        clients: how many there are.
        plans: how much of it is measured, by variant.
        rounds: how often, in turn.
    """

    workload: Workload
    clients: int
    plans: Mapping[str, Plan]
    rounds: int = 3

    @property
    def name(self) -> str:
        """For tables and `--only`."""
        plural = "client" if self.clients == 1 else "clients"
        return f"{self.workload.name}, {self.clients} {plural}"

    def shortened(self) -> "Cell":
        """The same in one short round, to see that it runs; bulk jobs from one client only."""
        clients = self.clients if self.workload.texts == 1 else 1
        plans = {
            name: replace(plan, clients=clients, warmup_jobs=clients, jobs=clients, seconds=0.3)
            for name, plan in self.plans.items()
        }
        return replace(self, clients=clients, plans=plans, rounds=1)


@dataclass(frozen=True)
class Result:
    """A cell's figures: the medians, and the rounds they come from, by variant."""

    cell: str
    medians: Mapping[str, Sample]
    rounds: Mapping[str, Sequence[Sample]]
    floor: Mapping[str, float] | None = None


def cells() -> list[Cell]:
    """The default grid, sized for about three minutes where the stock loop is 100 × slower."""
    return [
        _single(1, stock=Plan(1, warmup_jobs=3, jobs=20, seconds=4)),
        _single(32, stock=Plan(32, warmup_jobs=64, seconds=2.5)),
        _single(256, stock=Plan(256, warmup_jobs=256, seconds=2.5)),
        _single(32, stock=Plan(32, warmup_jobs=64, seconds=2.5), encoding="float"),
        _bulk(384, "float", stock_jobs=16),
        _bulk(384, "base64", stock_jobs=32),
        _bulk(1024, "float", stock_jobs=8),
        _bulk(1024, "base64", stock_jobs=24),
    ]


def ceiling_cells() -> list[Cell]:
    """The part of the grid that shows what the harness itself allows."""
    plans = [(1, Plan(1)), (32, Plan(32)), (256, Plan(256))]
    singles = [Cell(Workload(1), clients, {"bare": plan}) for clients, plan in plans]
    bulk = [
        Cell(
            Workload(512, dimensions, model=f"standin-{dimensions}"),
            _BULK_CLIENTS,
            {"bare": Plan(_BULK_CLIENTS)},
        )
        for dimensions in (384, 1024)
    ]
    return [*singles, *bulk]


def _single(clients: int, *, stock: Plan, encoding: str = "base64") -> Cell:
    ours = Plan(clients, warmup_jobs=10 * clients + 200, seconds=2.0)
    workload = Workload(1, encoding="float" if encoding == "float" else "base64")
    plans = {"stock": stock, "ours": ours, "apart": ours}
    if clients == _COMPARED_CLIENTS:
        # Elsewhere it would take minutes to see the same.
        plans["stock-default"] = Plan(clients, warmup_jobs=clients, jobs=2 * clients)
    return Cell(workload, clients, plans)


def _bulk(dimensions: int, encoding: str, *, stock_jobs: int) -> Cell:
    workload = Workload(
        512,
        dimensions,
        "float" if encoding == "float" else "base64",
        model=f"standin-{dimensions}",
    )
    plans = {
        "stock": Plan(_BULK_CLIENTS, warmup_jobs=_BULK_CLIENTS, jobs=stock_jobs, seconds=6),
        "ours": Plan(_BULK_CLIENTS, warmup_jobs=3 * _BULK_CLIENTS, seconds=2.5),
        "apart": Plan(_BULK_CLIENTS, warmup_jobs=3 * _BULK_CLIENTS, seconds=2.5),
    }
    return Cell(workload, _BULK_CLIENTS, plans, rounds=2)


async def run_grid(chosen: Sequence[Cell], variants: Sequence[str]) -> list[Result]:
    """Measure cells on one stand-in engine, with one worker of each variant.

    The workers live side by side and take turns; the one whose turn it is not has an open poll.

    Raises:
        WrongAnswerError: an answer is an error or wrong, or none comes.
        ProcessFailedError: a process did not start.
    """
    async with AsyncExitStack() as stack:
        edge = await stack.enter_async_context(MeasuringEdge())
        url, cost = await stack.enter_async_context(running_standin())
        engine = Engine(url, [cost], counts=True)
        workers = [
            await stack.enter_async_context(running_worker(name, edge, url, known(name)))
            for name in variants
        ]
        results = []
        for cell in chosen:
            own = await floor(cell.workload, engine, FLOOR_REQUESTS[cell.workload.texts])
            routes = {worker.variant: ThroughWorker(worker) for worker in workers}
            results.append(await measure_in_turn(cell, routes, engine, own))
        return results


def known(variant: str) -> Mapping[str, str]:
    """What a variant is told of the models: where their tokenizer lies, for `ours`."""
    if variant != "ours":
        return {}
    tokenizer = demo_settings()["MODEL_NAMES"].split(";")[0]
    return {
        "MODEL_NAMES": ";".join([tokenizer] * len(MODELS)),
        "SERVED_MODEL_NAMES": ";".join(MODELS),
    }


async def measure_in_turn(
    cell: Cell,
    routes: Mapping[str, Route],
    engine: Engine,
    own: Mapping[str, float] | None = None,
) -> Result:
    """Measure a cell on every route, round after round, so that drift meets all of them.

    Args:
        cell: what to measure; a route for which it has no plan is left out.
        routes: the ways, by name.
        engine: the engine at their end.
        own: the engine's own latency, for the result.
    """
    planned = {name: route for name, route in routes.items() if name in cell.plans}
    rounds: dict[str, list[Sample]] = {name: [] for name in planned}
    for number in range(1, cell.rounds + 1):
        for name, route in planned.items():
            print(f"… {cell.name}: {name}, round {number}", flush=True)
            try:
                sample = await measure(route, cell.workload, cell.plans[name], engine)
            except WrongAnswerError as error:
                raise WrongAnswerError(f"{name}, round {number}: {error}") from error
            rounds[name].append(sample)
    medians = {name: median(samples) for name, samples in rounds.items()}
    return Result(cell.name, medians, rounds, own)
