"""The queue and the jobs of the edge: plain asyncio, no HTTP.

submit ─→ IN_QUEUE ─ take ─→ IN_PROGRESS ─ finish ─→ COMPLETED | FAILED
             │  ↑─── give_back ──┘ │
             └────── cancel ───────┴────────────→ CANCELLED
"""

import asyncio
import heapq
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class JobStatus(StrEnum):
    """The states of a job, as the platform spells them."""

    IN_QUEUE = "IN_QUEUE"
    IN_PROGRESS = "IN_PROGRESS"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    TIMED_OUT = "TIMED_OUT"


@dataclass(slots=True, eq=False)
class Job:
    """One unit of work. Times are readings of the queue's clock, in seconds.

    Attributes:
        input: What the worker gets: anything orjson can write, an `orjson.Fragment` too.
        number: Its place in the line of all jobs ever submitted.
        finished: Set when the job has reached its last state.
    """

    id: str
    input: Any
    sync: bool
    number: int
    created_at: float
    status: JobStatus = JobStatus.IN_QUEUE
    output: Any = None
    error: Any = None
    started_at: float | None = None
    finished_at: float | None = None
    worker_id: str | None = None
    finished: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(slots=True)
class _Stops:
    """The ids of the jobs that a worker is still to be told to stop."""

    job_ids: list[str] = field(default_factory=list)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)


class JobQueue:
    """First in, first out; every waiting side is woken by the event it waits for.

    Args:
        clock: Seconds that never go backwards.
        keep_s: How long a finished job can be asked for.
        keep_sync_s: The same for a job whose caller waited for the result.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        keep_s: float = 1800.0,
        keep_sync_s: float = 60.0,
    ) -> None:
        self._clock = clock
        self._keep_s = {False: keep_s, True: keep_sync_s}
        self._jobs: dict[str, Job] = {}
        # A heap by number: what is given back finds its old place. A job cancelled while it
        # queued stays in it and is passed over when its turn comes.
        self._line: list[tuple[int, Job]] = []
        self._takers: dict[asyncio.Future[list[Job]], tuple[str, int]] = {}
        self._stops: dict[str, _Stops] = {}
        self._expiry: list[tuple[float, str]] = []
        self._submitted = 0
        self._statuses: Counter[JobStatus] = Counter()
        self._busy: Counter[str] = Counter()

    def submit(self, input: Any, *, sync: bool) -> Job:  # noqa: A002  # the platform's own word
        """Puts a job at the end of the line; the longest-waiting taker gets it at once."""
        self._expire()
        self._submitted += 1
        job_id = f"{'sync-' if sync else ''}{uuid.uuid4()}-u1"
        job = Job(job_id, input, sync, self._submitted, self._clock())
        self._jobs[job_id] = job
        self._statuses[job.status] += 1
        heapq.heappush(self._line, (job.number, job))
        self._hand_out()
        return job

    def get(self, job_id: str) -> Job | None:
        """The job of that id, or None where it is unknown or has expired."""
        self._expire()
        return self._jobs.get(job_id)

    def forget(self, job: Job) -> None:
        """Drops a finished job whose result nobody can ask for again."""
        self._jobs.pop(job.id, None)

    async def take(self, worker_id: str, limit: int = 1, wait_s: float = 0.0) -> list[Job]:
        """Assigns up to `limit` jobs to a worker.

        Waits up to `wait_s` for the first one. When this is cancelled, whatever had been assigned
        is back in its place in the line.
        """
        if jobs := self._assign(worker_id, limit):
            return jobs
        turn: asyncio.Future[list[Job]] = asyncio.get_running_loop().create_future()
        self._takers[turn] = (worker_id, limit)
        try:
            await asyncio.wait({turn}, timeout=wait_s)
        except asyncio.CancelledError:
            if turn.done():
                self.give_back(turn.result())
            raise
        finally:
            self._takers.pop(turn, None)
        return turn.result() if turn.done() else []

    def give_back(self, jobs: Iterable[Job]) -> None:
        """Returns taken jobs, which never reached their worker, to their places in the line."""
        for job in jobs:
            if job.status is not JobStatus.IN_PROGRESS:
                continue
            self._move(job, JobStatus.IN_QUEUE)
            job.worker_id = job.started_at = None
            heapq.heappush(self._line, (job.number, job))
        self._hand_out()

    def progress(self, worker_id: str, job_id: str, output: Any) -> bool:
        """Keeps an interim output; False where the job is not this worker's to report on."""
        if job := self._in_progress(worker_id, job_id):
            job.output = output
        return job is not None

    def finish(self, worker_id: str, job_id: str, output: Any = None, error: Any = None) -> bool:
        """Records a result (FAILED where `error` is true); False where `progress` says so too."""
        job = self._in_progress(worker_id, job_id)
        if job is None:
            return False
        job.output, job.error = (None, error) if error else (output, None)
        self._end(job, JobStatus.FAILED if error else JobStatus.COMPLETED)
        return True

    def cancel(self, job_id: str) -> Job | None:
        """Cancels a job that has not finished, and has its worker told; None where unknown."""
        job = self.get(job_id)
        if job is None or job.finished.is_set():
            return job
        if job.worker_id is not None:
            self.signal_stop(job.worker_id, [job.id])
        self._end(job, JobStatus.CANCELLED)
        return job

    def signal_stop(self, worker_id: str, job_ids: Iterable[str]) -> None:
        """Leaves word for a worker to stop these jobs."""
        stops = self._stops.setdefault(worker_id, _Stops())
        stops.job_ids.extend(job_ids)
        stops.arrived.set()

    async def stop_signals(self, worker_id: str, wait_s: float = 0.0) -> list[str]:
        """The ids of the jobs a worker is to stop; waits up to `wait_s` for the first."""
        stops = self._stops.setdefault(worker_id, _Stops())
        await _set_within(stops.arrived, wait_s)
        job_ids, stops.job_ids = stops.job_ids, []
        stops.arrived.clear()
        return job_ids

    async def wait(self, job: Job, seconds: float) -> bool:
        """Waits for the end of a job; False where it has not finished in that time."""
        return await _set_within(job.finished, seconds)

    def counts(self) -> dict[str, int]:
        """How many jobs there are, and have been, in the words of `/health`."""
        return {
            "completed": self._statuses[JobStatus.COMPLETED],
            "failed": self._statuses[JobStatus.FAILED],
            "inProgress": self._statuses[JobStatus.IN_PROGRESS],
            "inQueue": self._statuses[JobStatus.IN_QUEUE],
            "retried": 0,
        }

    def is_busy(self, worker_id: str) -> bool:
        """Whether a worker has jobs in progress."""
        return self._busy[worker_id] > 0

    def _hand_out(self) -> None:
        while self._line and self._takers:
            turn, (worker_id, limit) = next(iter(self._takers.items()))
            jobs = self._assign(worker_id, limit)
            if not jobs:
                return
            del self._takers[turn]
            turn.set_result(jobs)

    def _assign(self, worker_id: str, limit: int) -> list[Job]:
        jobs: list[Job] = []
        while self._line and len(jobs) < limit:
            _, job = heapq.heappop(self._line)
            if job.status is JobStatus.IN_QUEUE:
                job.worker_id, job.started_at = worker_id, self._clock()
                self._move(job, JobStatus.IN_PROGRESS)
                jobs.append(job)
        return jobs

    def _in_progress(self, worker_id: str, job_id: str) -> Job | None:
        job = self._jobs.get(job_id)
        mine = job and job.status is JobStatus.IN_PROGRESS and job.worker_id == worker_id
        return job if mine else None

    def _end(self, job: Job, status: JobStatus) -> None:
        self._move(job, status)
        job.finished_at = self._clock()
        heapq.heappush(self._expiry, (job.finished_at + self._keep_s[job.sync], job.id))
        job.finished.set()

    def _move(self, job: Job, status: JobStatus) -> None:
        for state, change in ((job.status, -1), (status, 1)):
            self._statuses[state] += change
            if state is JobStatus.IN_PROGRESS and job.worker_id is not None:
                self._busy[job.worker_id] += change
        job.status = status

    def _expire(self) -> None:
        now = self._clock()
        while self._expiry and self._expiry[0][0] <= now:
            self._jobs.pop(heapq.heappop(self._expiry)[1], None)


async def _set_within(event: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            return await event.wait()
    except TimeoutError:
        return event.is_set()
