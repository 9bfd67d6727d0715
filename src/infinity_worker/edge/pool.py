"""Which workers of a load-balancing endpoint are healthy, and which one gets a request."""

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from http import HTTPStatus

import aiohttp

# What a client sends to have a certain worker (docs.runpod.io, load balancing).
_PIN = re.compile(r"(?:(strict|strict-resume) +)?(\S+)")


class Health(StrEnum):
    """What a worker's `/ping` says."""

    SILENT = "starting"
    INITIALIZING = "initializing"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"


@dataclass(slots=True)
class Backend:
    """One worker.

    Attributes:
        worker_id: Its name, as clients see it.
        url: Where it listens.
        health: What its last `/ping` said.
        first_204_at: When it first said that it initializes; a cold start begins there.
        cold_start_s: From then to its first 200.
        open: Requests that it has.
        served: Requests that it has answered.
    """

    worker_id: str
    url: str
    health: Health = Health.SILENT
    first_204_at: float | None = None
    cold_start_s: float | None = None
    open: int = 0
    served: int = 0


@dataclass(frozen=True, slots=True)
class Pin:
    """A client's wish for a worker: this one if it is there, or none but this one."""

    worker_id: str
    is_strict: bool = False

    @classmethod
    def read(cls, header: str | None) -> "Pin | None":
        """The wish in an `X-Runpod-Worker-Id`; None for one that cannot be read."""
        match = _PIN.fullmatch((header or "").strip())
        return cls(match[2], match[1] is not None) if match else None


@dataclass(slots=True)
class Pool:
    """The workers of one endpoint, and who waits for one. Times are in seconds.

    Attributes:
        poll_s: Between two looks at a worker.
        ping_s: How long a worker may take to answer one.
        backends: By id.
    """

    poll_s: float = 0.25
    ping_s: float = 2.0
    backends: dict[str, Backend] = field(default_factory=dict)
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    def add(self, worker_id: str, url: str) -> None:
        """Know a worker that was started; it gets requests once it is healthy."""
        self.backends[worker_id] = Backend(worker_id, url)

    def remove(self, worker_id: str) -> None:
        """Forget a worker that has ended."""
        self.backends.pop(worker_id, None)

    async def watch(self, session: aiohttp.ClientSession) -> None:
        """Look at every worker, again and again, until cancelled."""
        while True:
            await asyncio.gather(
                *(self._look_at(backend, session) for backend in list(self.backends.values()))
            )
            async with self._changed:
                self._changed.notify_all()
            await asyncio.sleep(self.poll_s)

    async def _look_at(self, backend: Backend, session: aiohttp.ClientSession) -> None:
        status = None
        with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError):
            timeout = aiohttp.ClientTimeout(total=self.ping_s)
            async with session.get(f"{backend.url}/ping", timeout=timeout) as reply:
                status = reply.status
        now = time.monotonic()
        if status == HTTPStatus.OK:
            if backend.cold_start_s is None:
                backend.cold_start_s = now - (backend.first_204_at or now)
            backend.health = Health.HEALTHY
        elif status == HTTPStatus.NO_CONTENT:
            backend.first_204_at = backend.first_204_at or now
            backend.health = Health.INITIALIZING
        elif status is not None or backend.health is not Health.SILENT:
            backend.health = Health.UNHEALTHY

    @asynccontextmanager
    async def worker(self, pin: Pin | None, wait_s: float) -> AsyncIterator[Backend]:
        """Have the healthy worker with the fewest requests, or the one that is wished for.

        Raises:
            TimeoutError: None was there in time.
        """
        chosen = self._choose(pin)
        if chosen is None:
            async with asyncio.timeout(wait_s), self._changed:
                while chosen is None:
                    await self._changed.wait()
                    chosen = self._choose(pin)
        chosen.open += 1
        try:
            yield chosen
        finally:
            chosen.open -= 1
            chosen.served += 1

    def _choose(self, pin: Pin | None) -> Backend | None:
        healthy = [
            # A copy: the workers' processes are kept by another thread.
            each
            for each in list(self.backends.values())
            if each.health is Health.HEALTHY
        ]
        if pin is not None:
            wished = [each for each in healthy if each.worker_id == pin.worker_id]
            if wished or pin.is_strict:
                return wished[0] if wished else None
        return min(healthy, key=lambda each: (each.open, each.served), default=None)
