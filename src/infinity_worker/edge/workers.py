"""The workers: which ones the edge has heard of, how they do, and what connects one to it."""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

WORKER_SEEN_S = 30.0
"""A worker not heard of for this long counts as gone."""

MAX_WORKERS = 1000
"""The most workers that are known at a time."""

_LATENCIES = 500
_CHECK_CHARS = 100
# An edge without a token reads none; without any the SDK would send no pings.
_NO_TOKEN = "local"  # noqa: S105  # a word that stands for none


class TooManyWorkersError(Exception):
    """More workers ask than can be known at a time."""


@dataclass(slots=True)
class Worker:
    """What is known of one worker. Times are readings of the registry's clock, in seconds.

    Attributes:
        seen_at: When it was last heard of; None for one that was started and has not spoken yet.
        pings: Whether it has ever pinged: only then does silence mean that it is lost.
        unhealthy: Whether its last ping said so.
        failed_check: The fitness check that it said has failed.
        leaving: Whether it is about to be stopped, and gets nothing more.
        lost: Whether its pings have stopped.
        ended: Whether its process has ended.
        busy_at: When it last took or finished a job, or first spoke.
        jobs: Jobs that it has finished.
        items: Embeddings in their results.
        latencies: Seconds from the submission to the end of its last jobs.
    """

    seen_at: float | None = None
    pings: bool = False
    unhealthy: bool = False
    failed_check: str = ""
    leaving: bool = False
    lost: bool = False
    ended: bool = False
    busy_at: float = 0.0
    jobs: int = 0
    items: int = 0
    latencies: deque[float] = field(default_factory=lambda: deque(maxlen=_LATENCIES))

    @property
    def takes_jobs(self) -> bool:
        """Whether it may be handed a job."""
        return not (self.unhealthy or self.leaving or self.lost or self.ended)


class Workers:
    """The workers that asked for a job, or pinged, a short while ago.

    Args:
        clock: Seconds that never go backwards.
        lost_s: After this long without a word a worker that pings is lost.
        on_lost: Called with the id of a worker that is lost, that is unhealthy, or that ended.
        on_forgotten: Called with the id of a worker that is not known any more.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        lost_s: float = 20.0,
        on_lost: Callable[[str], None] = lambda _id: None,
        on_forgotten: Callable[[str], None] = lambda _id: None,
    ) -> None:
        self._clock = clock
        self._lost_s = lost_s
        self._on_lost = on_lost
        self._on_forgotten = on_forgotten
        self._workers: dict[str, Worker] = {}
        self._sweep_due: asyncio.TimerHandle | None = None

    def expect(self, worker_id: str) -> None:
        """Makes a worker known that has been started and has not spoken yet."""
        self._get(worker_id)

    def seen(self, worker_id: str) -> Worker:
        """Marks a worker as alive now.

        Raises:
            TooManyWorkersError: It is a new one, and too many are known.
        """
        worker = self._get(worker_id)
        now = self._clock()
        if worker.seen_at is None:
            worker.busy_at = now
        worker.seen_at, worker.lost = now, False
        return worker

    def pinged(self, worker_id: str, *, unhealthy: bool = False, check: str = "") -> None:
        """Marks a worker as alive now, and notes how it says it does."""
        worker = self.seen(worker_id)
        worker.pings = True
        # It is shown in a terminal.
        worker.failed_check = "".join(filter(str.isprintable, check))[:_CHECK_CHARS]
        if unhealthy and not worker.unhealthy:
            worker.unhealthy = True
            self._on_lost(worker_id)
        worker.unhealthy = unhealthy
        self._watch()

    def retire(self, worker_id: str) -> None:
        """Lets a worker have no more jobs: it is about to be stopped."""
        self._get(worker_id).leaving = True

    def ended(self, worker_id: str) -> None:
        """Notes that a worker's process has ended; its jobs go to others."""
        self._get(worker_id).ended = True
        self._on_lost(worker_id)
        self._watch()

    def known(self) -> dict[str, Worker]:
        """The workers by their ids."""
        return self._workers

    def counts(self, is_busy: Callable[[str], bool]) -> dict[str, int]:
        """How many workers there are, in the words of `/health`."""
        since = self._clock() - WORKER_SEEN_S
        here = {name: worker for name, worker in self._workers.items() if not worker.ended}
        spoken = {name: w for name, w in here.items() if w.seen_at is not None}
        alive = {name: w for name, w in spoken.items() if (w.seen_at or 0.0) > since and not w.lost}
        ready = [name for name, worker in alive.items() if worker.takes_jobs]
        running = sum(map(is_busy, ready))
        return {
            "idle": len(ready) - running,
            "initializing": len(here) - len(spoken),
            "ready": len(ready),
            "running": running,
            "throttled": 0,
            "unhealthy": sum(worker.unhealthy for worker in alive.values()),
        }

    def _get(self, worker_id: str) -> Worker:
        worker = self._workers.get(worker_id)
        if worker is None:
            if len(self._workers) >= MAX_WORKERS:
                self._sweep()
            if len(self._workers) >= MAX_WORKERS:
                raise TooManyWorkersError
            worker = self._workers[worker_id] = Worker(busy_at=self._clock())
        return worker

    def _watch(self) -> None:
        """Looks at the workers now and then, for as long as there are any that ping."""
        if self._sweep_due is None:
            loop = asyncio.get_running_loop()
            self._sweep_due = loop.call_later(self._lost_s / 4, self._sweep_and_watch)

    def _sweep_and_watch(self) -> None:
        self._sweep_due = None
        self._sweep()
        if any(worker.pings or worker.ended for worker in self._workers.values()):
            self._watch()

    def _sweep(self) -> None:
        now = self._clock()
        for worker_id, worker in list(self._workers.items()):
            if worker.seen_at is None and not worker.ended:
                continue
            silent_s = now - (worker.seen_at or worker.busy_at)
            if worker.pings and silent_s > self._lost_s and not (worker.lost or worker.ended):
                worker.lost = True
                self._on_lost(worker_id)
            if silent_s > max(WORKER_SEEN_S, self._lost_s * 2):
                del self._workers[worker_id]
                self._on_forgotten(worker_id)


def worker_environment(
    base_url: str, endpoint_id: str, worker_id: str, token: str = _NO_TOKEN
) -> dict[str, str]:
    """The variables that make the real RunPod SDK work for an edge.

    Args:
        base_url: The edge's own URL, without a path.
        endpoint_id: The endpoint whose jobs the worker takes.
        worker_id: What the worker is to be called; one name for each worker.
        token: What the edge knows its workers by.

    Returns:
        Only `RUNPOD_*` variables: what else the process needs is its starter's to add.
    """
    api = f"{base_url.rstrip('/')}/v2/{endpoint_id}"
    # The SDK appends its own parameters with `&`: every URL must carry a `?` already.
    return {
        "RUNPOD_WEBHOOK_GET_JOB": f"{api}/job-take/$ID?gpu=cpu",
        "RUNPOD_WEBHOOK_POST_OUTPUT": f"{api}/job-done/$RUNPOD_POD_ID/$ID?gpu=cpu",
        "RUNPOD_WEBHOOK_POST_STREAM": f"{api}/job-stream/$RUNPOD_POD_ID/$ID?gpu=cpu",
        "RUNPOD_WEBHOOK_PING": f"{api}/ping/$RUNPOD_POD_ID?gpu=cpu",
        "RUNPOD_PING_INTERVAL": "5000",
        "RUNPOD_AI_API_KEY": token,
        "RUNPOD_POD_ID": worker_id,
        "RUNPOD_ENDPOINT_ID": endpoint_id,
        # At its own default, DEBUG, the SDK prints every result.
        "RUNPOD_LOG_LEVEL": "INFO",
        # Both checks dial out or look for a GPU.
        "RUNPOD_SKIP_AUTO_SYSTEM_CHECKS": "true",
        "RUNPOD_SKIP_GPU_CHECK": "true",
    }
