"""A worker whose engine client fails in a way that nobody foresaw."""

import functools
from typing import NoReturn, cast

from infinity_worker import job_loop
from infinity_worker.handler import Worker, async_handler
from infinity_worker.infinity_client import InfinityClient
from infinity_worker.settings import Settings


class BrokenClient:
    """Stands where an `InfinityClient` is expected."""

    async def models(self) -> NoReturn:
        """Fail."""
        raise RuntimeError("a secret detail")


if __name__ == "__main__":
    worker = Worker(cast("InfinityClient", BrokenClient()))
    job_loop.run(functools.partial(async_handler, worker=worker), Settings.from_process())
