"""The queue and the jobs of the edge: plain asyncio, no HTTP.

submit ─→ IN_QUEUE ─ take ─→ IN_PROGRESS ─ finish ─→ COMPLETED | FAILED
           │  ↑ └ give_back, abandon ┘ ├─ (executionTimeout) ─→ TIMED_OUT
           │  └──────── retry ─────────┼───────── FAILED | TIMED_OUT
           └─────────── cancel ────────┴─────────→ CANCELLED
When its time to live is over, or the line is purged, an unfinished job is gone.
"""

import asyncio
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import orjson

from infinity_worker.edge.job import DEFAULT_OPTIONS, Job, JobOptions, JobStatus, Stream
from infinity_worker.edge.line import Line
from infinity_worker.edge.shelf import Shelf
from infinity_worker.edge.signals import StopSignals, set_within

RETRIABLE = {JobStatus.FAILED, JobStatus.TIMED_OUT}


class QueueFullError(Exception):
    """No further job can be held: too many, or too many bytes, have not finished yet."""


class JobQueue:
    """First in, first out; every waiting side is woken by the event it waits for.

    Args:
        clock: Seconds that never go backwards.
        keep_s: How long a finished job can be asked for.
        keep_sync_s: The same for a job whose caller waited for the result.
        max_jobs: The most jobs held; to stay within it the oldest finished ones go early.
        max_bytes: The same for the bytes of inputs and results.
        max_attempts: How many workers may die of a job before it fails.
        on_end: Called with each job that reaches its last state.

    Attributes:
        stops: What each worker is still to be told to stop.
    """

    def __init__(  # noqa: PLR0913  # bounds and times, each optional
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        keep_s: float = 1800.0,
        keep_sync_s: float = 60.0,
        max_jobs: int = 100_000,
        max_bytes: int = 2_000_000_000,
        max_attempts: int = 3,
        on_end: Callable[[Job], None] = lambda _job: None,
    ) -> None:
        self.stops = StopSignals()
        self._clock = clock
        self._max_jobs = max_jobs
        self._max_bytes = max_bytes
        self._max_attempts = max_attempts
        self._on_end = on_end
        self._jobs: dict[str, Job] = {}
        self._line = Line(self._start)
        self._shelf = Shelf(clock, keep_s, keep_sync_s)
        self._held: defaultdict[str, dict[str, Job]] = defaultdict(dict)
        self._submitted = 0
        self._bytes = 0
        self._statuses: Counter[JobStatus] = Counter()
        self._retried = 0

    def submit(
        self,
        input: Any,  # noqa: A002  # the platform's own word
        *,
        sync: bool,
        options: JobOptions = DEFAULT_OPTIONS,
        size: int = 0,
    ) -> Job:
        """Puts a job at the end of the line; the longest-waiting taker gets it at once.

        Raises:
            QueueFullError: No further job can be held.
        """
        self._make_room(size)
        self._submitted += 1
        job_id = f"{'sync-' if sync else ''}{uuid.uuid4()}-u1"
        job = Job(job_id, input, sync, self._submitted, self._clock(), options)
        self._jobs[job_id] = job
        self._grow(job, size)
        self._statuses[job.status] += 1
        self.set_ttl(job, options.ttl_s)
        self._line.add(job)
        self._line.match()
        return job

    def get(self, job_id: str) -> Job | None:
        """The job of that id, or None where it is unknown or has expired."""
        self._expire()
        return self._jobs.get(job_id)

    def forget(self, job: Job) -> None:
        """Drops a job: nobody can ask for it again, and whoever waits for it is woken."""
        if self._jobs.pop(job.id, None) is None:
            return
        self._grow(job, -job.size)
        if job.lapse is not None:
            job.lapse.cancel()
        if job.finished.is_set():
            self._shelf.remove(job)
            return
        self._leave(job)
        self._statuses[job.status] -= 1
        job.gone = True
        _wake(job)

    async def take(self, worker_id: str, limit: int = 1, wait_s: float = 0.0) -> list[Job]:
        """Assigns up to `limit` jobs to a worker.

        Waits up to `wait_s` for the first one. When this is cancelled, whatever had been assigned
        is back in its place in the line.
        """
        if jobs := self._line.assign(worker_id, limit):
            return jobs
        return await self._line.turn(
            worker_id, limit, wait_s, lambda jobs: self.give_back(worker_id, jobs)
        )

    def give_back(self, worker_id: str, jobs: Iterable[Job]) -> None:
        """Returns jobs that a worker took, and that never reached it, to their places."""
        for job in jobs:
            if self._in_progress(worker_id, job.id):
                job.attempts -= 1
                self._put_back(job)
        self._line.match()

    def abandon(self, worker_id: str) -> None:
        """Hands the jobs of a worker that died to others; fails those that were tried enough."""
        self.release(worker_id)
        for job in list(self._held.get(worker_id, {}).values()):
            if job.attempts < self._max_attempts:
                self._retried += 1
                self._put_back(job)
            else:
                job.error = f"{job.attempts} workers ended while they ran this job."
                self._end(job, JobStatus.FAILED)
        self._line.match()

    def release(self, worker_id: str) -> None:
        """Ends a worker's open polls with nothing."""
        self._line.release(worker_id)
        self.stops.release(worker_id)

    def progress(self, worker_id: str, job_id: str, output: Any) -> bool:
        """Keeps an interim output; False where the job is not this worker's to report on."""
        if job := self._in_progress(worker_id, job_id):
            job.output = output
        return job is not None

    def add_part(self, worker_id: str, job_id: str, part: bytes, limit: int) -> bool | None:
        """Keeps a part of a result, as JSON; False where `progress` says so too.

        Returns None, and keeps nothing, where more than `limit` bytes would wait to be asked for.
        """
        job = self._in_progress(worker_id, job_id)
        if job is None:
            return False
        stream = job.stream = job.stream or Stream()
        if stream.size + len(part) > limit:
            return None
        stream.parts.append(orjson.Fragment(part))
        stream.size += len(part)
        self._grow(job, len(part))
        stream.news.set()
        return True

    async def take_parts(self, job: Job, wait_s: float = 0.0) -> list[orjson.Fragment]:
        """The parts that nobody has had yet; waits for the first while the job is unfinished."""
        stream = job.stream = job.stream or Stream()
        if not (stream.parts or job.finished.is_set()):
            await set_within(stream.news, wait_s)
        parts, stream.parts = stream.parts, []
        self._grow(job, -stream.size)
        stream.size = 0
        stream.news.clear()
        return parts

    def finish(
        self, worker_id: str, job_id: str, output: Any = None, error: Any = None, *, size: int = 0
    ) -> bool:
        """Records a result (FAILED where `error` is true); False where `progress` says so too."""
        job = self._in_progress(worker_id, job_id)
        if job is None:
            return False
        self._grow(job, size)
        job.output, job.error = (None, error) if error else (output, None)
        self._end(job, JobStatus.FAILED if error else JobStatus.COMPLETED)
        return True

    def cancel(self, job_id: str) -> Job | None:
        """Cancels a job that has not finished, and has its worker told; None where unknown."""
        job = self.get(job_id)
        if job is None or job.finished.is_set():
            return job
        self._tell_to_stop(job)
        self._end(job, JobStatus.CANCELLED)
        return job

    def retry(self, job: Job) -> bool:
        """Puts a job that failed, or timed out, at the end of the line; False for any other."""
        if job.status not in RETRIABLE:
            return False
        self._shelf.remove(job)
        self._retried += 1
        self._submitted += 1
        job.number, job.created_at = self._submitted, self._clock()
        self._grow(job, -job.stream.size if job.stream else 0)
        job.attempts, job.stream = 0, None
        job.finished_at = job.output = job.error = None
        job.finished.clear()
        self.set_ttl(job, job.options.ttl_s)
        self._put_back(job)
        self._line.match()
        return True

    def purge(self) -> int:
        """Drops every job in the line, and says how many."""
        queued = self._line.all()
        for job in queued:
            self.forget(job)
        return len(queued)

    def set_ttl(self, job: Job, seconds: float) -> None:
        """Makes a job gone that many seconds from now, whatever becomes of it."""
        if job.lapse is not None:
            job.lapse.cancel()
        job.lapse = asyncio.get_running_loop().call_later(seconds, self._lapse, job)

    async def wait(self, job: Job, seconds: float) -> bool:
        """Waits for the end of a job; False where it has not finished in that time."""
        return await set_within(job.finished, seconds)

    def counts(self) -> dict[str, int]:
        """How many jobs there are, and have been, in the words of `/health`."""
        return {
            "completed": self._statuses[JobStatus.COMPLETED],
            "failed": self._statuses[JobStatus.FAILED],
            "inProgress": self._statuses[JobStatus.IN_PROGRESS],
            "inQueue": self._statuses[JobStatus.IN_QUEUE],
            "retried": self._retried,
        }

    def held_by(self, worker_id: str) -> int:
        """How many jobs a worker has in progress."""
        return len(self._held.get(worker_id, ()))

    def queued_for_s(self) -> float | None:
        """How long the first in the line has been waiting; None where nothing waits."""
        first = self._line.first()
        return self._clock() - first.created_at if first else None

    def _start(self, job: Job, worker_id: str) -> None:
        job.worker_id, job.started_at = worker_id, self._clock()
        job.attempts += 1
        self._held[worker_id][job.id] = job
        self._move(job, JobStatus.IN_PROGRESS)
        loop = asyncio.get_running_loop()
        job.deadline = loop.call_later(job.options.execution_timeout_s, self._time_out, job)

    def _in_progress(self, worker_id: str, job_id: str) -> Job | None:
        return self._held.get(worker_id, {}).get(job_id)

    def _put_back(self, job: Job) -> None:
        self._leave(job)
        self._move(job, JobStatus.IN_QUEUE)
        job.worker_id = job.started_at = None
        self._line.add(job)

    def _leave(self, job: Job) -> None:
        """Takes a job off its worker, or notes that it has left the line."""
        if job.status is JobStatus.IN_QUEUE:
            self._line.has_lost()
        if job.deadline is not None:
            job.deadline.cancel()
            job.deadline = None
        held = self._held.get(job.worker_id or "", {})
        held.pop(job.id, None)
        if not held:
            self._held.pop(job.worker_id or "", None)

    def _end(self, job: Job, status: JobStatus) -> None:
        self._leave(job)
        self._move(job, status)
        job.finished_at = self._clock()
        if job.lapse is not None:
            job.lapse.cancel()
        self._shelf.put(job)
        _wake(job)
        self._on_end(job)

    def _move(self, job: Job, status: JobStatus) -> None:
        self._statuses[job.status] -= 1
        self._statuses[status] += 1
        job.status = status

    def _time_out(self, job: Job) -> None:
        self._tell_to_stop(job)
        job.error = f"The job ran longer than its {job.options.execution_timeout_s:g} s."
        job.output = None
        self._end(job, JobStatus.TIMED_OUT)

    def _lapse(self, job: Job) -> None:
        if not job.finished.is_set():
            self._tell_to_stop(job)
        self.forget(job)

    def _tell_to_stop(self, job: Job) -> None:
        if job.worker_id is not None:
            self.stops.leave(job.worker_id, [job.id])

    def _make_room(self, size: int) -> None:
        """Lets the oldest finished jobs go where there is no room for another one."""
        self._expire()
        while len(self._jobs) >= self._max_jobs or self._bytes + size > self._max_bytes:
            oldest = self._shelf.oldest()
            if oldest is None:
                raise QueueFullError
            self.forget(oldest)

    def _grow(self, job: Job, size: int) -> None:
        job.size += size
        self._bytes += size

    def _expire(self) -> None:
        for job in self._shelf.expired():
            self.forget(job)


def _wake(job: Job) -> None:
    job.finished.set()
    if job.stream is not None:
        job.stream.news.set()
