"""Word for the workers: which of their jobs to stop."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(slots=True)
class _Stops:
    job_ids: list[str] = field(default_factory=list)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)


class StopSignals:
    """The ids of the jobs that each worker is still to be told to stop."""

    def __init__(self) -> None:
        self._stops: dict[str, _Stops] = {}

    def leave(self, worker_id: str, job_ids: Iterable[str]) -> None:
        """Leaves word for a worker to stop these jobs."""
        stops = self._stops.setdefault(worker_id, _Stops())
        stops.job_ids.extend(job_ids)
        stops.arrived.set()

    async def collect(self, worker_id: str, wait_s: float = 0.0) -> list[str]:
        """The ids of the jobs a worker is to stop; waits up to `wait_s` for the first."""
        stops = self._stops.setdefault(worker_id, _Stops())
        await set_within(stops.arrived, wait_s)
        job_ids, stops.job_ids = stops.job_ids, []
        stops.arrived.clear()
        return job_ids

    def release(self, worker_id: str) -> None:
        """Ends a worker's open poll, for which there is no word to wait for any more."""
        if stops := self._stops.get(worker_id):
            stops.arrived.set()

    def forget(self, worker_id: str) -> None:
        """Drops what was left for a worker that is gone."""
        self.release(worker_id)
        self._stops.pop(worker_id, None)


async def set_within(event: asyncio.Event, seconds: float) -> bool:
    """Waits for an event; False where it has not come in that time."""
    try:
        async with asyncio.timeout(seconds):
            return await event.wait()
    except TimeoutError:
        return event.is_set()
