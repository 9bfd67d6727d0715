"""What every test may use."""

from collections.abc import AsyncIterator

import pytest

from fakes.fake_engine import FakeEngine
from infinity_worker.batching import Batcher
from infinity_worker.catalogue import Catalogue
from infinity_worker.infinity_client import InfinityClient
from infinity_worker.worker import Worker


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the tests of a file in one process, and those that share the real stack in one too."""
    for item in items:
        folder = item.path.parent.name
        group = folder if folder == "e2e" else item.path.name
        item.add_marker(pytest.mark.xdist_group(group))


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
async def worker(client: InfinityClient) -> AsyncIterator[Worker]:
    """What a handler needs, in front of `engine`."""
    worker = Worker(client, Catalogue(client), Batcher(client))
    yield worker
    await worker.close()
