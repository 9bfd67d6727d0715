"""How the edge is doing, as a copy that can be read in another thread."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from infinity_worker.edge.state import Edge
from infinity_worker.edge.workers import Worker


class WorkerState(StrEnum):
    """What a worker is doing, as far as the edge can tell."""

    STARTING = "starting"
    IDLE = "idle"
    RUNNING = "running"
    UNHEALTHY = "unhealthy"
    LOST = "lost"
    STOPPING = "stopping"


@dataclass(frozen=True, slots=True)
class WorkerReport:
    """One worker.

    Attributes:
        failed_check: The fitness check that an unhealthy worker named.
        in_progress: Jobs that it runs.
        jobs: Jobs that it has finished.
        items: Embeddings in their results.
        idle_s: Seconds since it last had a job.
        p50_s: The median of the seconds from the submission to the end of its last jobs.
        p95_s: What 95 of 100 of them stayed within.
    """

    state: WorkerState
    failed_check: str = ""
    in_progress: int = 0
    jobs: int = 0
    items: int = 0
    idle_s: float = 0.0
    p50_s: float | None = None
    p95_s: float | None = None


@dataclass(frozen=True, slots=True)
class EdgeReport:
    """The queue and the workers.

    Attributes:
        queued_s: How long the first job in the line has waited; None where none waits.
        workers: Reports by worker ids.
    """

    queued_s: float | None
    workers: Mapping[str, WorkerReport]


def report_of(edge: Edge) -> EdgeReport:
    """How an edge is doing now."""
    now = time.monotonic()
    workers = {
        worker_id: _worker_report(worker, edge.queue.held_by(worker_id), now)
        for worker_id, worker in edge.workers.known().items()
        if not worker.ended
    }
    return EdgeReport(edge.queue.queued_for_s(), workers)


def _worker_report(worker: Worker, in_progress: int, now: float) -> WorkerReport:
    latencies = sorted(worker.latencies)
    return WorkerReport(
        _state(worker, in_progress),
        worker.failed_check,
        in_progress,
        worker.jobs,
        worker.items,
        0.0 if in_progress else now - worker.busy_at,
        percentile(latencies, 0.50),
        percentile(latencies, 0.95),
    )


def _state(worker: Worker, in_progress: int) -> WorkerState:
    if worker.leaving:
        return WorkerState.STOPPING
    if worker.lost:
        return WorkerState.LOST
    if worker.unhealthy:
        return WorkerState.UNHEALTHY
    if worker.seen_at is None:
        return WorkerState.STARTING
    return WorkerState.RUNNING if in_progress else WorkerState.IDLE


def percentile(ordered: Sequence[float], share: float) -> float | None:
    """The smallest value that this share of the ordered values stays within; None of none."""
    if not ordered:
        return None
    return ordered[math.ceil(share * len(ordered)) - 1]
