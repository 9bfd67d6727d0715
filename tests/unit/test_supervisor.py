"""Watching an engine without a process: looking at it, and counting restarts."""

import asyncio

import pytest

from fakes.fake_engine import FakeEngine, embedding_of
from infinity_worker.batching import Batcher
from infinity_worker.infinity_client import InfinityClient, InfinityError, InfinityTimeout
from infinity_worker.recovery import Finding
from infinity_worker.supervisor import CanaryWatch, RestartLimit


@pytest.mark.parametrize(
    ("most", "times", "expected"),
    [
        (2, [0, 1, 2], [True, True, False]),
        (2, [0, 1, 10], [True, True, True]),
        (2, [0, 9, 9.9, 10, 18.9, 19], [True, True, False, True, False, True]),
        (0, [0], [False]),
    ],
)
def test_so_many_restarts_within_the_window(
    most: int, times: list[float], expected: list[bool]
) -> None:
    limit = RestartLimit(most, 10.0)
    assert [limit.allows(now) for now in times] == expected


async def test_a_broken_connection_is_a_plain_retry(
    engine: FakeEngine, client: InfinityClient
) -> None:
    engine.mode = "stumble"
    batcher = Batcher(client, CanaryWatch(client))
    batch = await batcher.embed("fake-text", ["a"], "text", together=True)
    assert batch.vectors.tolist() == [embedding_of("a").tolist()]
    assert [request["input"] for request in engine.requests] == [["a"], ["ready?"], ["a"]]


async def test_a_request_that_stalls_fails_its_own_job_and_its_neighbour_is_answered(
    engine: FakeEngine,
) -> None:
    engine.stalled = "stall"
    async with InfinityClient(engine.url, timeout_s=1.5) as client:
        batcher = Batcher(client, CanaryWatch(client), requests_under_way=1)
        jobs = [["a"], ["b", "stall"], ["c"]]
        answers = await asyncio.gather(
            *(batcher.embed("fake-text", job, "text", together=True) for job in jobs),
            return_exceptions=True,
        )
    assert isinstance(answers[1], InfinityTimeout)
    assert not isinstance(answers[0], BaseException)
    assert not isinstance(answers[2], BaseException)


@pytest.mark.parametrize("mode", ["hang", "reset", "fail"])
async def test_an_engine_of_somebody_else_is_named_and_not_waited_for(
    engine: FakeEngine, mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    engine.mode = mode
    async with InfinityClient(engine.url, timeout_s=0.5) as client:
        watch = CanaryWatch(client, 0.5)
        with pytest.raises(InfinityError):
            await Batcher(client, watch).embed("fake-text", ["a"], "text", together=True)
        assert await watch.diagnose("fake-text", 0) is Finding.SILENT
    assert "not this worker's to restart (INFINITY_URL)" in caplog.text
    assert engine.url not in caplog.text


async def test_canaries_are_sent_one_at_a_time(engine: FakeEngine, client: InfinityClient) -> None:
    await client.models()
    engine.mode = "wait"
    watch = CanaryWatch(client)
    looks = [asyncio.ensure_future(watch.diagnose("fake-text", 0)) for _ in range(5)]
    await engine.asked.wait()
    looks[0].cancel()
    engine.mode = "ok"
    assert await asyncio.gather(*looks[1:]) == [Finding.ANSWERS] * 4
    assert len(engine.requests) == 1
