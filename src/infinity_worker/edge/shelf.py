"""The finished jobs, while their results can be asked for."""

from collections.abc import Callable, Iterator

from infinity_worker.edge.job import Job


class Shelf:
    """Finished jobs in the order in which they finished.

    Args:
        clock: Seconds that never go backwards.
        keep_s: How long a finished job can be asked for.
        keep_sync_s: The same for a job whose caller waited for the result.
    """

    def __init__(self, clock: Callable[[], float], keep_s: float, keep_sync_s: float) -> None:
        self._clock = clock
        self._keep_s = {False: keep_s, True: keep_sync_s}
        # A job of a kind that finished first expires first: both are in the order of their ends.
        self._jobs: dict[bool, dict[str, Job]] = {False: {}, True: {}}

    def put(self, job: Job) -> None:
        """Keeps a job that has just finished."""
        self._jobs[job.sync][job.id] = job

    def remove(self, job: Job) -> None:
        """Takes a job away; one that is not there stays away."""
        self._jobs[job.sync].pop(job.id, None)

    def expired(self) -> Iterator[Job]:
        """Takes away the jobs whose time is over."""
        now = self._clock()
        for sync, jobs in self._jobs.items():
            while jobs:
                job = next(iter(jobs.values()))
                if _end_of(job) + self._keep_s[sync] > now:
                    break
                del jobs[job.id]
                yield job

    def oldest(self) -> Job | None:
        """Takes away the job that finished first."""
        firsts = [next(iter(jobs.values())) for jobs in self._jobs.values() if jobs]
        job = min(firsts, key=_end_of, default=None)
        if job is not None:
            self.remove(job)
        return job


def _end_of(job: Job) -> float:
    return job.finished_at or 0.0
