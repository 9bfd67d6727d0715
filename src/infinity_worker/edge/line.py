"""The line of the jobs that wait for a worker, and the workers that wait for a job."""

import asyncio
import heapq
from collections.abc import Callable

from infinity_worker.edge.job import Job, JobStatus

_SLACK = 1000


class Line:
    """Jobs by their numbers, takers by how long they have waited; it brings them together.

    Args:
        start: Called with each job that is assigned, and the worker's id.
    """

    def __init__(self, start: Callable[[Job, str], None]) -> None:
        self._start = start
        # A heap by number: what is given back finds its old place. A job that has left the line
        # otherwise stays in it and is passed over when its turn comes.
        self._jobs: list[tuple[int, Job]] = []
        self._left = 0
        self._takers: dict[asyncio.Future[list[Job]], tuple[str, int]] = {}

    def add(self, job: Job) -> None:
        """Puts a job in its place."""
        heapq.heappush(self._jobs, (job.number, job))

    def has_lost(self) -> None:
        """Counts a job that has left without being assigned; now and then they are swept out."""
        self._left += 1
        if self._left > _SLACK and self._left * 2 > len(self._jobs):
            self._jobs = [entry for entry in self._jobs if _waits(entry[1])]
            heapq.heapify(self._jobs)
            self._left = 0

    def match(self) -> None:
        """Assigns jobs for as long as there are both jobs and takers."""
        while self._jobs and self._takers:
            turn, (worker_id, limit) = next(iter(self._takers.items()))
            jobs = self.assign(worker_id, limit)
            if not jobs:
                return
            del self._takers[turn]
            turn.set_result(jobs)

    def assign(self, worker_id: str, limit: int) -> list[Job]:
        """Assigns the first jobs to a worker, up to `limit`."""
        jobs: list[Job] = []
        while len(jobs) < limit and (job := self.first()):
            heapq.heappop(self._jobs)
            self._start(job, worker_id)
            jobs.append(job)
        return jobs

    def first(self) -> Job | None:
        """The job whose turn it is."""
        while self._jobs and not _waits(self._jobs[0][1]):
            heapq.heappop(self._jobs)
            self._left -= 1
        return self._jobs[0][1] if self._jobs else None

    def all(self) -> list[Job]:
        """Every job in the line, in no order."""
        return [job for _, job in self._jobs if _waits(job)]

    async def turn(
        self, worker_id: str, limit: int, wait_s: float, left: Callable[[list[Job]], None]
    ) -> list[Job]:
        """Waits for jobs up to `wait_s`.

        Args:
            worker_id: Whom they are for.
            limit: The most jobs.
            wait_s: Seconds.
            left: Called with what had been assigned already when this is cancelled.
        """
        turn: asyncio.Future[list[Job]] = asyncio.get_running_loop().create_future()
        self._takers[turn] = (worker_id, limit)
        try:
            await asyncio.wait({turn}, timeout=wait_s)
        except asyncio.CancelledError:
            if turn.done():
                left(turn.result())
            raise
        finally:
            self._takers.pop(turn, None)
        return turn.result() if turn.done() else []

    def release(self, worker_id: str) -> None:
        """Ends the waits of a worker with nothing."""
        for turn, (taker, _) in list(self._takers.items()):
            if taker == worker_id:
                del self._takers[turn]
                turn.set_result([])


def _waits(job: Job) -> bool:
    return job.status is JobStatus.IN_QUEUE and not job.gone
