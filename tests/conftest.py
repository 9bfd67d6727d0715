"""What every test may use."""

from collections.abc import AsyncIterator

import pytest

from fakes.fake_engine import FakeEngine
from infinity_worker.batching import Batcher
from infinity_worker.catalogue import Catalogue
from infinity_worker.infinity_client import InfinityClient
from infinity_worker.worker import Worker


@pytest.fixture
async def engine() -> AsyncIterator[FakeEngine]:
    """A fake engine of this test's own."""
    async with FakeEngine() as engine:
        yield engine


@pytest.fixture
async def client(engine: FakeEngine) -> AsyncIterator[InfinityClient]:
    """A client of `engine`."""
    async with InfinityClient(engine.url, timeout_s=30.0) as client:
        yield client


@pytest.fixture
def worker(client: InfinityClient) -> Worker:
    """What a handler needs, in front of `engine`."""
    return Worker(client, Catalogue(client), Batcher(client))
