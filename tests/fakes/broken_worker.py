"""A worker whose engine client fails in a way that nobody foresaw."""

from collections.abc import Mapping
from typing import NoReturn, cast

from infinity_worker import job_loop
from infinity_worker.batching import Batcher
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


if __name__ == "__main__":
    client = cast("InfinityClient", BrokenClient())
    broken = Worker(client, Batcher(client))

    async def handler(job: Mapping[str, object], record: JobRecord) -> JobResult:
        """Answer with the broken client."""
        return await async_handler(job, broken, record)

    async def close() -> None:
        """There is nothing to close."""

    job_loop.run(handler, Settings.from_process(), close)
