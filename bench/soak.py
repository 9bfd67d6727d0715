"""Full rate for long: does the worker's memory grow?"""

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from bench.closed_loop import Plan
from bench.measure import MB, Engine, ThroughWorker, measure
from bench.measuring_edge import MeasuringEdge
from bench.processes import Cost, running_standin, running_worker
from bench.workload import Workload

CLIENTS = 32
WARMUP_JOBS = 5_000
WARMUP_S = 5.0
_EVERY_S = 0.5
_PER_JOBS = 100_000


@dataclass
class _Watch:
    """The worker's memory over time."""

    cost: Cost
    rss_mb: list[float] = field(default_factory=list)

    async def run(self) -> None:
        while True:
            self.rss_mb.append(self.cost.now().rss / MB)
            await asyncio.sleep(_EVERY_S)


async def run_soak(seconds: float, jobs: int, variant: str = "ours") -> Mapping[str, float]:
    """Measure for so many seconds or jobs, whichever ends first.

    Returns:
        Named figures. Growth is the difference of the means of the last and the first tenth of
        the samples; the trend is fitted to the second half, in which every cache is filled.

    Raises:
        WrongAnswerError: an answer is an error or wrong, or none comes.
        ProcessFailedError: a process did not start.
    """
    async with (
        MeasuringEdge() as edge,
        running_standin() as (url, cost),
        running_worker(variant, edge, url) as worker,
    ):
        engine = Engine(url, [cost], counts=True)
        route, workload = ThroughWorker(worker), Workload(1)
        await measure(route, workload, Plan(CLIENTS, jobs=WARMUP_JOBS, seconds=WARMUP_S), engine)
        watch = _Watch(worker.program.cost)
        watching = asyncio.create_task(watch.run())
        plan = Plan(CLIENTS, warmup_jobs=CLIENTS, jobs=jobs, seconds=seconds)
        sample = await measure(route, workload, plan, engine)
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching
    tenth = max(1, len(watch.rss_mb) // 10)
    half = watch.rss_mb[len(watch.rss_mb) // 2 :]
    slope = float(np.polyfit(range(len(half)), half, 1)[0]) if len(half) > 1 else 0.0
    return {
        "jobs": sample.completed,
        "seconds": sample.seconds,
        "jobs/s": sample.jobs_per_s,
        "p50 ms": sample.p50_ms,
        "p99 ms": sample.p99_ms,
        "RSS at start MB": float(np.mean(watch.rss_mb[:tenth])),
        "RSS at end MB": float(np.mean(watch.rss_mb[-tenth:])),
        "growth MB": float(np.mean(watch.rss_mb[-tenth:]) - np.mean(watch.rss_mb[:tenth])),
        "trend MB per 100,000 jobs": round(slope / _EVERY_S / sample.jobs_per_s * _PER_JOBS, 3),
        "peak RSS MB": sample.peak_rss_mb or 0.0,
    }
