"""One measurement: clients, through one worker, of one workload."""

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Protocol

import orjson
import psutil

from bench.closed_loop import ClosedLoop, Measured, Plan, Submit
from bench.http1 import Client, request_to
from bench.measuring_edge import OnResult
from bench.processes import Cost, Usage, Worker
from bench.workload import Workload

MS = 1_000.0
MB = 1e6


@dataclass(frozen=True)
class Sample:
    """What one measurement found; None where it does not apply.

    Attributes:
        p50_ms: median latency, from a job being available to its result having arrived.
        p95_ms: the 95th percentile.
        p99_ms: the 99th percentile.
        jobs_per_s: completed jobs a second.
        worker_cpu_ms: CPU time of the worker process for a job, its children apart.
        kb_out: size of a posted result.
        peak_rss_mb: the worker's largest resident memory.
        engine_requests: engine requests for a job.
        takes: polls answered with jobs, for a job.
        worker_share: how much of one core the worker took.
        engine_share: how much of one core the engine took.
        edge_share: how much of one core the clients and the edge took.
        others_share: the same of everything else on the machine: it should be next to nothing,
            or the rest is worth less.
        completed: jobs measured, all of them completed.
        seconds: how long was measured.
    """

    p50_ms: float
    p95_ms: float
    p99_ms: float
    jobs_per_s: float
    worker_cpu_ms: float | None
    kb_out: float
    peak_rss_mb: float | None
    engine_requests: float | None
    takes: float | None
    worker_share: float | None
    engine_share: float | None
    edge_share: float
    others_share: float
    completed: float
    seconds: float

    def as_dict(self) -> dict[str, float | None]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Engine:
    """An engine that is being asked.

    Attributes:
        url: where it listens.
        costs: of its processes.
        counts: whether it counts its requests.
    """

    url: str
    costs: Sequence[Cost]
    counts: bool = False

    async def requests(self) -> int | None:
        """Embedding requests answered so far, where the engine counts them."""
        if not self.counts:
            return None
        client = await Client.connect(self.url)
        stats = orjson.loads(await client.ask(request_to("/stats")))
        client.close()
        return int(stats["requests"])


@dataclass(frozen=True)
class Snapshot:
    """What everybody has cost at one moment."""

    worker: Usage | None
    engine_cpu_s: float
    own_cpu_s: float
    machine_cpu_s: float
    takes: int

    @classmethod
    def take(cls, worker: Worker | None, engine: Engine) -> "Snapshot":
        """Look at every process."""
        return cls(
            worker.program.cost.now() if worker else None,
            sum(cost.now().cpu_s for cost in engine.costs),
            time.process_time(),
            _busy_s(),
            worker.lane.takes if worker and worker.lane else 0,
        )


class Route(Protocol):
    """A way to an engine."""

    @property
    def worker(self) -> Worker | None:
        """The worker on the way, if there is one."""

    def bind(self, workload: Workload, on_result: OnResult) -> Submit:
        """Send this workload from now on; results go to `on_result`.

        Returns:
            What sends a job, by its id and its number.
        """


@dataclass(frozen=True)
class ThroughWorker:
    """The way through a worker: what it takes and posts."""

    worker: Worker

    def bind(self, workload: Workload, on_result: OnResult) -> Submit:
        """Make jobs available in the worker's lane."""
        inputs, lane = workload.job_inputs, self.worker.lane
        assert lane is not None  # noqa: S101  # narrows the type
        lane.on_result = on_result

        def submit(job_id: str, number: int) -> None:
            lane.submit(job_id, inputs[number % len(inputs)])

        return submit


async def measure(route: Route, workload: Workload, plan: Plan, engine: Engine) -> Sample:
    """Run clients.

    Raises:
        WrongAnswerError: an answer is an error or wrong, or none comes.
    """
    snapshots: list[Snapshot] = []
    worker = route.worker
    loop = ClosedLoop(workload, plan, lambda: snapshots.append(Snapshot.take(worker, engine)))
    submit = route.bind(workload, loop.on_result)
    if worker is not None:
        worker.program.cost.reset_peak()
    before = await engine.requests()
    measured = await loop.run(submit)
    after = await engine.requests()
    asked = None if before is None or after is None else (after - before) / loop.sent
    return summarise(measured, snapshots, asked)


def _busy_s() -> float:
    """CPU time that the machine has spent on anything, its hypervisor's other guests included."""
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - getattr(times, "iowait", 0.0))


def summarise(
    measured: Measured, snapshots: Sequence[Snapshot], engine_requests: float | None
) -> Sample:
    """Turn what was counted into what is reported.

    Args:
        measured: what the clients saw.
        snapshots: taken when the measured phase began and when it ended.
        engine_requests: for a job, where known.
    """
    first, last = snapshots
    jobs, seconds = measured.completed, measured.seconds
    latencies = sorted(measured.latencies)
    engine_cpu_s = last.engine_cpu_s - first.engine_cpu_s
    own_cpu_s = last.own_cpu_s - first.own_cpu_s
    worker_cpu_s = None
    if first.worker is not None and last.worker is not None:
        worker_cpu_s = last.worker.cpu_s - first.worker.cpu_s
    busy_s = last.machine_cpu_s - first.machine_cpu_s
    return Sample(
        p50_ms=percentile(latencies, 0.50) * MS,
        p95_ms=percentile(latencies, 0.95) * MS,
        p99_ms=percentile(latencies, 0.99) * MS,
        jobs_per_s=jobs / seconds,
        worker_cpu_ms=None if worker_cpu_s is None else worker_cpu_s / jobs * MS,
        kb_out=measured.bytes_out / jobs / 1_000,
        peak_rss_mb=None if last.worker is None else last.worker.peak_rss / MB,
        engine_requests=engine_requests,
        takes=None if last.worker is None else (last.takes - first.takes) / jobs,
        worker_share=None if worker_cpu_s is None else worker_cpu_s / seconds,
        engine_share=engine_cpu_s / seconds,
        edge_share=own_cpu_s / seconds,
        others_share=max(0.0, busy_s - engine_cpu_s - own_cpu_s - (worker_cpu_s or 0.0)) / seconds,
        completed=jobs,
        seconds=seconds,
    )


def percentile(ordered: Sequence[float], share: float) -> float:
    """The nearest-rank percentile of an ordered sequence."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def median(samples: Sequence[Sample]) -> Sample:
    """The median of every figure over rounds; of completed jobs and seconds the sum."""
    figures: dict[str, float | None] = {}
    for field in fields(Sample):
        values = [value for each in samples if (value := getattr(each, field.name)) is not None]
        combine = sum if field.name in {"completed", "seconds"} else statistics.median
        figures[field.name] = combine(values) if values else None
    return Sample(**figures)  # type: ignore[arg-type]  # None where every sample has None


async def floor(workload: Workload, engine: Engine, requests: int) -> Mapping[str, float]:
    """The engine's own latency in ms: one client, one request at a time, no worker."""
    client = await Client.connect(engine.url)
    bodies = [request_to("/embeddings", body) for body in workload.engine_requests]
    latencies = []
    for number in range(2 * requests):
        began = time.perf_counter()
        await client.ask(bodies[number % len(bodies)])
        latencies.append(time.perf_counter() - began)
    client.close()
    kept = sorted(latencies[requests:])
    return {"p50_ms": percentile(kept, 0.5) * MS, "p95_ms": percentile(kept, 0.95) * MS}
