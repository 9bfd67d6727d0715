"""The simulation beside the real thing: the local edge, workers, and engines of a known speed."""

import asyncio
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from fakes.slow_engine import SlowEngine
from infinity_worker.demo import models
from infinity_worker.edge.server import EdgeServer
from infinity_worker.edge.workers import worker_environment
from infinity_worker.sizing.costs import ServiceTime
from infinity_worker.sizing.simulation import Endpoint, Simulation
from processes import BOUND_S, clean_environment, running, worker_command

SERVICE = ServiceTime(0.04, 0.005)
JOBS = 120
# Workers and the jobs that each takes at a time, from the slowest to the fastest.
CONFIGURATIONS = [(1, 4), (2, 16)]
# A known tokenizer: without one no jobs share a request.
TOKENIZER = Path(models.__file__).parent / "shapes_clip"


@dataclass
class Run:
    """What a burst of `JOBS` took: seconds, seconds that each engine worked, texts in a request."""

    seconds: float
    engine_s: float
    batch: float


async def real(workers: int, concurrency: int) -> Run:
    async with AsyncExitStack() as stack:
        edge = stack.enter_context(EdgeServer())
        engines = [await stack.enter_async_context(SlowEngine(SERVICE)) for _ in range(workers)]
        for number, engine in enumerate(engines):
            variables = clean_environment(
                INFINITY_URL=engine.url,
                MODEL_NAMES=str(TOKENIZER),
                SERVED_MODEL_NAMES="fake-text",
                LOG_LEVEL="WARNING",
                RUNPOD_MAX_CONCURRENCY=str(concurrency),
                **worker_environment(edge.url, "local", f"w{number}"),
            )
            stack.enter_context(running(worker_command(), variables))
        limits = httpx.Limits(max_connections=None)
        client = await stack.enter_async_context(
            httpx.AsyncClient(base_url=f"{edge.url}/v2/local/", timeout=BOUND_S, limits=limits)
        )
        async with asyncio.timeout(BOUND_S):
            # The platform's own API tells of its workers in no other way.
            while (await client.get("health")).json()["workers"]["ready"] < workers:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        before = [(len(engine.requests), engine.busy_s) for engine in engines]
        began = time.perf_counter()
        body = {"input": {"model": "fake-text", "text": "a red circle"}}
        replies = await asyncio.gather(*(client.post("runsync", json=body) for _ in range(JOBS)))
        seconds = time.perf_counter() - began
        assert {reply.json()["status"] for reply in replies} == {"COMPLETED"}
        requests = sum(
            len(engine.requests) - count for engine, (count, _) in zip(engines, before, strict=True)
        )
        busy_s = sum(
            engine.busy_s - earlier for engine, (_, earlier) in zip(engines, before, strict=True)
        )
        return Run(seconds, busy_s / workers, JOBS / requests)


def simulated(workers: int, concurrency: int) -> Run:
    endpoint = Endpoint(SERVICE, concurrency, min_workers=workers, max_workers=workers)
    outcome = Simulation(endpoint, [(0.0, 1)] * JOBS).run()
    return Run(outcome.end_s, outcome.busy_s / workers, JOBS / outcome.engine_requests)


@pytest.mark.timeout(240)
async def test_the_simulation_orders_configurations_as_the_edge_does() -> None:
    measured = [await real(*each) for each in CONFIGURATIONS]
    expected = [simulated(*each) for each in CONFIGURATIONS]
    for each, run, model in zip(CONFIGURATIONS, measured, expected, strict=True):
        print(each, run, model)  # noqa: T201  # shown where it fails
        # The engines' work, which follows from how jobs are shared out, not from how fast the
        # machine is; a busy one lets fewer texts travel together.
        assert model.engine_s / 1.5 < run.engine_s < 3 * model.engine_s
    for runs in (measured, expected):
        assert runs[0].engine_s > runs[1].engine_s
