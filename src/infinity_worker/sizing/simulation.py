"""A discrete-event simulation of an endpoint: queue, scaler, cold starts, workers, engines.

What is modelled is what docs/architecture.md describes: a worker takes jobs while it has free
slots; its engine answers one request after the other, and up to `requests_under_way` are sent, by
the worker's own policy (`Gathering`). The platform's scaler is modelled by its documented rule,
evaluated once a second; its own delays are not documented and not modelled.
"""

import heapq
import math
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import count

from infinity_worker.gathering import Gathering
from infinity_worker.sizing.costs import ServiceTime

_SCALER_S = 1.0


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What is simulated. Times in seconds.

    Attributes:
        service: of the engine.
        concurrency: jobs that a worker takes at a time.
        batch_items: the most items in an engine request.
        requests_under_way: engine requests that a worker sends at a time.
        cold_start_s: from a worker's start to its first take.
        idle_timeout_s: how long a worker without a job lives on.
        min_workers: those that always run.
        max_workers: the most that are started.
        requests_per_worker: the request-count scaler's value; None for the queue-delay scaler.
        queue_delay_s: the queue-delay scaler's: a worker more when a job has waited so long.
    """

    service: ServiceTime
    concurrency: int = 50
    batch_items: int = 128
    requests_under_way: int = 2
    cold_start_s: float = 20.0
    idle_timeout_s: float = 5.0
    min_workers: int = 0
    max_workers: int = 3
    requests_per_worker: int | None = None
    queue_delay_s: float = 4.0


@dataclass(slots=True)
class Outcome:
    """What happened.

    Attributes:
        latencies: of each job, from arrival to answer.
        engine_requests: how many there were.
        busy_s: engine seconds worked.
        worker_s: worker seconds paid for, cold starts included.
        cold_starts: workers started after the beginning.
        timeline: after each scaler step: second, queued jobs, workers started.
    """

    latencies: list[float] = field(default_factory=list)
    engine_requests: int = 0
    busy_s: float = 0.0
    worker_s: float = 0.0
    cold_starts: int = 0
    timeline: list[tuple[float, int, int]] = field(default_factory=list)
    end_s: float = 0.0

    def percentile(self, share: float) -> float:
        """The latency that so large a share of the jobs does not exceed."""
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)]


@dataclass(frozen=True, slots=True)
class _Job:
    arrived: float
    items: int


@dataclass(slots=True, eq=False)
class _Worker:
    """One worker: jobs that wait in it, and its engine's requests, first come first served."""

    started: float
    gathering: Gathering
    is_up: bool = False
    waiting: deque[_Job] = field(default_factory=deque)
    under_way: deque[list[_Job]] = field(default_factory=deque)
    jobs: int = 0
    items_waiting: int = 0
    items_under_way: int = 0
    idle_since: float | None = None


class Simulation:
    """One run.

    Args:
        endpoint: what is simulated.
        arrivals: moments and items of the jobs, in order of time.
    """

    def __init__(self, endpoint: Endpoint, arrivals: Iterable[tuple[float, int]]) -> None:
        self._endpoint = endpoint
        self._outcome = Outcome()
        self._now = 0.0
        self._queue: deque[_Job] = deque()
        self._workers: list[_Worker] = []
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()
        self._open = 0
        for moment, items in arrivals:
            self._open += 1
            job = _Job(moment, items)
            self._at(moment, lambda job=job: self._arrive(job))  # type: ignore[misc]  # a default binds the job

    def run(self) -> Outcome:
        """Run until every job is answered."""
        for _ in range(self._endpoint.min_workers):
            self._start_worker(0.0)
        if self._endpoint.min_workers < self._endpoint.max_workers:
            self._at(0.0, self._scale)
        while self._events and self._open:
            self._now, _, happen = heapq.heappop(self._events)
            happen()
        self._outcome.end_s = self._now
        self._outcome.worker_s += sum(self._now - worker.started for worker in self._workers)
        return self._outcome

    def _at(self, moment: float, happen: Callable[[], None]) -> None:
        heapq.heappush(self._events, (moment, next(self._numbers), happen))

    def _arrive(self, job: _Job) -> None:
        self._queue.append(job)
        self._hand_out()

    def _hand_out(self) -> None:
        """Give queued jobs to workers with free slots, the emptiest first."""
        while self._queue:
            free = [
                worker
                for worker in self._workers
                if worker.is_up and worker.jobs < self._endpoint.concurrency
            ]
            if not free:
                return
            worker, job = min(free, key=lambda each: each.jobs), self._queue.popleft()
            worker.idle_since = None
            worker.waiting.append(job)
            worker.jobs += 1
            worker.items_waiting += job.items
            self._send(worker)

    def _send(self, worker: _Worker) -> None:
        while worker.waiting and len(worker.under_way) < self._endpoint.requests_under_way:
            gathering = worker.gathering
            fills = worker.items_waiting >= self._endpoint.batch_items
            if not gathering.may_leave(worker.items_waiting, worker.items_under_way, fills=fills):
                return
            batch = [worker.waiting.popleft()]
            items = batch[0].items
            while (
                worker.waiting
                and items < gathering.enough
                and items + worker.waiting[0].items <= self._endpoint.batch_items
            ):
                items += worker.waiting[0].items
                batch.append(worker.waiting.popleft())
            worker.under_way.append(batch)
            worker.items_waiting -= items
            worker.items_under_way += items
            if len(worker.under_way) == 1:
                self._work(worker)

    def _work(self, worker: _Worker) -> None:
        """Let the engine answer the first request under way."""
        seconds = self._endpoint.service.of(sum(job.items for job in worker.under_way[0]))
        self._outcome.engine_requests += 1
        self._outcome.busy_s += seconds
        self._at(self._now + seconds, lambda: self._answer(worker))

    def _answer(self, worker: _Worker) -> None:
        worker.gathering.request_ended(worker.items_waiting, worker.items_under_way)
        answered = worker.under_way.popleft()
        worker.jobs -= len(answered)
        worker.items_under_way -= sum(job.items for job in answered)
        for job in answered:
            self._outcome.latencies.append(self._now - job.arrived)
            self._open -= 1
        if worker.under_way:
            self._work(worker)
        self._hand_out()
        self._send(worker)
        if not worker.jobs:
            worker.idle_since = self._now

    def _start_worker(self, cold_start_s: float) -> None:
        worker = _Worker(self._now, Gathering(self._endpoint.requests_under_way))
        self._workers.append(worker)
        self._at(self._now + cold_start_s, lambda: self._come_up(worker))

    def _come_up(self, worker: _Worker) -> None:
        worker.is_up = True
        worker.idle_since = self._now
        self._hand_out()

    def _scale(self) -> None:
        endpoint = self._endpoint
        for worker in list(self._workers):
            idle_s = self._now - worker.idle_since if worker.idle_since is not None else 0.0
            if idle_s >= endpoint.idle_timeout_s and len(self._workers) > endpoint.min_workers:
                self._workers.remove(worker)
                self._outcome.worker_s += self._now - worker.started
        wanted = min(self._wanted(), endpoint.max_workers)
        for _ in range(wanted - len(self._workers)):
            self._outcome.cold_starts += 1
            self._start_worker(endpoint.cold_start_s)
        self._outcome.timeline.append((self._now, len(self._queue), len(self._workers)))
        self._at(self._now + _SCALER_S, self._scale)

    def _wanted(self) -> int:
        if self._endpoint.requests_per_worker is not None:
            jobs = len(self._queue) + sum(worker.jobs for worker in self._workers)
            return math.ceil(jobs / self._endpoint.requests_per_worker)
        if not self._queue:
            return 0
        waited = self._now - self._queue[0].arrived
        late = waited >= self._endpoint.queue_delay_s or not self._workers
        return len(self._workers) + late
