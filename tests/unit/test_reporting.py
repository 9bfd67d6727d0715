"""Reporting results to a platform that misbehaves."""

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web

from infinity_worker.reporting import Delivery, Reporter
from infinity_worker.results import Report

# Long enough for any answer that comes, on a busy machine too.
HANG_S = 1.5
SMALL = Report(b'{"output":1}', 200)
LARGE = Report(b'{"output":"' + b"x" * 200_000 + b'"}', 200)


class Platform:
    """Answers job-done as its script says, then with 200."""

    def __init__(self) -> None:
        self.script: list[str] = []
        self.received: list[tuple[str, str, bytes]] = []
        self.url = ""

    async def take(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.received.append((request.path, request.headers["X-Request-ID"], body))
        step = self.script.pop(0) if self.script else "200"
        if step == "hang":
            await asyncio.sleep(30)
        if step == "reset":
            assert request.transport is not None
            request.transport.abort()
        return web.Response(
            status=int(step) if step.isdecimal() else 200, headers={"Retry-After": "0"}
        )


@pytest.fixture
async def platform() -> AsyncIterator[Platform]:
    platform = Platform()
    app = web.Application()
    app.router.add_post("/done/{job}", platform.take)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    platform.url = "http://{}:{}/done".format(*runner.addresses[0])
    yield platform
    await runner.cleanup()


@pytest.fixture
async def reporter(platform: Platform) -> AsyncIterator[Reporter]:
    async with aiohttp.ClientSession() as session:
        yield Reporter(session, lambda job: f"{platform.url}/{job}", HANG_S, give_up_s=60.0)


@pytest.mark.parametrize(
    ("script", "tries"),
    [
        ([], 1),
        (["500"], 2),
        (["429"], 2),
        (["reset"], 2),
        (["hang"], 2),
        (["500", "429", "reset", "hang", "503"], 6),
    ],
)
async def test_a_passing_failure_loses_nothing(
    platform: Platform, reporter: Reporter, script: list[str], tries: int
) -> None:
    platform.script = script
    assert await reporter.send("job-1", SMALL) is Delivery.ACCEPTED
    assert platform.received == [("/done/job-1", "job-1", SMALL.body)] * tries


@pytest.mark.parametrize("status", ["400", "401", "404", "410", "422"])
async def test_a_job_that_is_gone_is_not_tried_again(
    platform: Platform, reporter: Reporter, status: str
) -> None:
    platform.script = [status]
    assert await reporter.send("job-1", SMALL) is Delivery.GONE
    assert len(platform.received) == 1


@pytest.mark.parametrize("status", ["400", "413"])
async def test_a_large_body_that_is_not_taken_is_refused(
    platform: Platform, reporter: Reporter, status: str
) -> None:
    platform.script = [status]
    assert await reporter.send("job-1", LARGE) is Delivery.REFUSED


async def test_it_gives_up_in_the_end(platform: Platform) -> None:
    platform.script = ["500"] * 100
    async with aiohttp.ClientSession() as session:
        reporter = Reporter(session, lambda _job: f"{platform.url}/j", HANG_S, give_up_s=0.05)
        assert await reporter.send("j", SMALL) is Delivery.LOST


async def test_jobs_side_by_side_keep_their_own_ids(platform: Platform) -> None:
    jobs = [f"job-{number}" for number in range(50)]
    async with aiohttp.ClientSession() as session:
        patient = Reporter(session, lambda job: f"{platform.url}/{job}", 60.0)
        await asyncio.gather(*(patient.send(job, SMALL) for job in jobs))
    assert sorted(request_id for _, request_id, _ in platform.received) == sorted(jobs)
    assert all(path.endswith(f"/{request_id}") for path, request_id, _ in platform.received)
