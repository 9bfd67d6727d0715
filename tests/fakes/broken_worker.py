"""A worker whose engine client fails in a way that nobody foresaw."""

import asyncio
from collections.abc import Mapping
from typing import NoReturn, cast

from infinity_worker import job_loop
from infinity_worker.batching import Batcher
from infinity_worker.catalogue import Catalogue
from infinity_worker.handler import async_handler
from infinity_worker.infinity_client import InfinityClient
from infinity_worker.logs import JobRecord
from infinity_worker.results import JobResult
from infinity_worker.settings import Settings
from infinity_worker.worker import Worker


class BrokenClient:
    """Stands where an `InfinityClient` is expected."""

    async def models(self) -> NoReturn:
        """Fail."""
        raise RuntimeError("a secret detail")


class BrokenService:
    """Answers jobs with the broken client."""

    def __init__(self) -> None:
        client = cast("InfinityClient", BrokenClient())
        self._worker = Worker(client, Catalogue(client), Batcher(client))

    async def prepare(self) -> None:
        """There is nothing to wait for."""

    async def answer(self, job: Mapping[str, object], record: JobRecord) -> JobResult:
        """Answer one job."""
        return await async_handler(job, self._worker, record)

    def taking(self) -> None:
        """Nobody wants to know."""

    async def supervise(self) -> None:
        """There is nothing to watch."""
        await asyncio.Event().wait()

    async def close(self) -> None:
        """There is nothing to close."""


if __name__ == "__main__":
    job_loop.run(BrokenService(), Settings.from_process())
