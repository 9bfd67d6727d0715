"""What every test may use."""

from collections.abc import AsyncIterator

import pytest
from xdist.scheduler import LoadScopeScheduling

from fakes.fake_engine import FakeEngine
from infinity_worker.batching import Batcher
from infinity_worker.catalogue import Catalogue
from infinity_worker.infinity_client import InfinityClient
from infinity_worker.worker import Worker


class ByFile(LoadScopeScheduling):  # type: ignore[misc]  # pytest-xdist is untyped
    """Keeps the tests of a file in one process, and those that share the real stack in one too."""

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.partition("::")[0]
        return "tests/e2e" if path.startswith("tests/e2e/") else path


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> ByFile:
    """How pytest-xdist shares the tests among processes."""
    return ByFile(config, log)


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
