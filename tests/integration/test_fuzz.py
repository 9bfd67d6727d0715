"""Whatever is sent ends in a result or an error of the contract: never a 500, a hang, a crash."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fakes.fake_engine import FakeEngine, embedding_of
from hostile import hostile_body, hostile_input
from infinity_worker.batching import Batcher
from infinity_worker.catalogue import Catalogue
from infinity_worker.edge.server import EdgeServer
from infinity_worker.edge.workers import worker_environment
from infinity_worker.handler import async_handler
from infinity_worker.infinity_client import InfinityClient
from infinity_worker.results import report_of
from infinity_worker.worker import Worker
from processes import TESTS, clean_environment, running, worker_command

BOUND_S = 30.0
AT_ONCE = 20
CALLERS_FAULT = range(400, 429)
SLOW = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]


def assert_contract(answer: object) -> None:
    """A result, or an error of the contract that is the caller's."""
    assert isinstance(answer, dict)
    if "error" in answer:
        error = answer["error"]
        assert error.keys() == {"message", "type", "param", "code"}
        assert error["code"] in CALLERS_FAULT, error


@settings(max_examples=260, deadline=None, suppress_health_check=SLOW)
@given(st.lists(hostile_input(), min_size=AT_ONCE, max_size=AT_ONCE))
async def test_5200_hostile_jobs_at_the_handler(inputs: list[Any]) -> None:
    """Twenty at a time, and a good one beside them, which is answered right."""
    async with FakeEngine() as engine, InfinityClient(engine.url, timeout_s=BOUND_S) as client:
        worker = Worker(client, Catalogue(client), Batcher(client))
        jobs = [{"id": f"j{at}", "input": value} for at, value in enumerate(inputs)]
        async with asyncio.timeout(BOUND_S):
            *results, good = await asyncio.gather(
                *(async_handler(job, worker) for job in jobs),
                async_handler({"id": "good", "input": {"input": "good"}}, worker),
            )
        await worker.close()
    for result in results:
        assert json.loads(report_of(result, 19_000_000).body)
        assert_contract(result[0] if isinstance(result, list) else result)
    assert isinstance(good, dict)
    data: Any = good["data"]
    assert list(data[0]["embedding"]) == list(embedding_of("good"))


@pytest.fixture(scope="module")
def edge_url() -> Iterator[str]:
    """An edge with a real worker process behind it, and a fake engine behind that."""
    program = [sys.executable, str(TESTS / "fakes" / "fake_engine.py")]
    with running(program, clean_environment(), output=subprocess.PIPE) as engine:
        assert engine.stdout is not None
        with EdgeServer() as edge:
            environment = clean_environment(
                **worker_environment(edge.url, "local", "w0"),
                INFINITY_URL=engine.stdout.readline().strip(),
            )
            with running(worker_command(), environment):
                yield edge.url


async def send(edge_url: str, path: str, bodies: list[bytes]) -> list[httpx.Response]:
    async with httpx.AsyncClient(base_url=edge_url, timeout=BOUND_S) as client:
        return await asyncio.gather(*(client.post(path, content=body) for body in bodies))


@settings(max_examples=25, deadline=None, suppress_health_check=SLOW)
@given(st.lists(hostile_body(), min_size=AT_ONCE, max_size=AT_ONCE))
async def test_500_hostile_bodies_at_runsync(edge_url: str, bodies: list[bytes]) -> None:
    good = b'{"input": {"input": "good"}}'
    *replies, last = await send(edge_url, "/v2/local/runsync", [*bodies, good])
    for reply in replies:
        if reply.status_code == httpx.codes.OK:
            job = reply.json()
            assert job["status"] in ("COMPLETED", "FAILED")
            if job["status"] == "FAILED":
                assert_contract({"error": json.loads(job["error"])})
            elif isinstance(job["output"], list):
                assert_contract(job["output"][0])
        else:
            assert reply.status_code in CALLERS_FAULT
            assert "error" in reply.json()
    assert last.json()["status"] == "COMPLETED"


@settings(max_examples=15, deadline=None, suppress_health_check=SLOW)
@given(st.lists(hostile_body(wrapped=False), min_size=AT_ONCE, max_size=AT_ONCE))
async def test_300_hostile_bodies_at_the_openai_route(edge_url: str, bodies: list[bytes]) -> None:
    for reply in await send(edge_url, "/v2/local/openai/v1/embeddings", bodies):
        if reply.status_code == httpx.codes.OK:
            assert_contract(reply.json())
        else:
            assert reply.status_code in CALLERS_FAULT
            assert "error" in reply.json()


@pytest.mark.parametrize("depth", [100, 200, 500, 900, 970, 1_000, 1_021, 1_024, 5_000, 100_000])
@pytest.mark.parametrize("brackets", ["[]", '{"a":}'])
async def test_however_deeply_a_body_is_nested(edge_url: str, depth: int, brackets: str) -> None:
    deep = brackets[:-1] * depth + "1" + brackets[-1] * depth
    body = f'{{"input": {{"input": "a", "extra": {deep}}}}}'.encode()
    (reply,) = await send(edge_url, "/v2/local/runsync", [body])
    if reply.status_code == httpx.codes.OK:
        assert reply.json()["status"] == "COMPLETED"
    else:
        assert reply.status_code == httpx.codes.BAD_REQUEST
