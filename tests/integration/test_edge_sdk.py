"""The real SDK behind the edge, and real clients in front of it."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import openai
import pytest

from infinity_worker.edge.report import report_of
from infinity_worker.edge.server import EdgeServer
from infinity_worker.edge.state import EdgeSettings
from infinity_worker.edge.workers import worker_environment
from processes import clean_environment, running

ECHO_WORKER = Path(__file__).parents[1] / "fakes" / "echo_worker.py"
BOUND_S = 30.0

# In a process of its own: the SDK reads its base URL when it is imported.
ENDPOINT_CLIENT = """
import json
import runpod

endpoint = runpod.Endpoint("local", api_key="any")
cancelled = endpoint.run({"await": "the cancellation"}).cancel()
endpoint.run_sync({"signal": "the cancellation"}, timeout=30)
print(json.dumps({
    "run_sync": endpoint.run_sync({"echo": [1, 2]}, timeout=30),
    "run": endpoint.run({"input": {"echo": {"a": 1}}}).output(timeout=30),
    "failed": endpoint.run_sync({"fail": "on purpose"}, timeout=30),
    "cancelled": cancelled["status"],
    "health": sorted(endpoint.health()),
}))
"""


def end(process: subprocess.Popen[bytes], edge: EdgeServer) -> None:
    """Ends the SDK's process, and its ping process with it."""
    process.send_signal(signal.SIGTERM)
    # The SDK finishes its open polls first; the edge answers them when it stops.
    edge.stop()
    try:
        process.wait(BOUND_S)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(BOUND_S)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """An endpoint behind which one echo worker runs."""
    edge = EdgeServer()
    edge.start()
    environment = clean_environment() | worker_environment(edge.url, "local", "echo-1")
    process = subprocess.Popen(
        [sys.executable, str(ECHO_WORKER)],
        env=environment,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield edge.url
    finally:
        end(process, edge)


class Endpoint:
    """The endpoint as a client by hand sees it."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def post(self, path: str, body: Any = None) -> dict[str, Any]:
        async with self._session.post(path, json=body) as response:
            told: dict[str, Any] = await response.json()
            return told

    async def run(self, job_input: Any) -> str:
        job_id: str = (await self.post("run", {"input": job_input}))["id"]
        return job_id

    async def runsync(self, job_input: Any) -> dict[str, Any]:
        return await self.post("runsync?wait=25000", {"input": job_input})

    async def finished(self, job_id: str) -> dict[str, Any]:
        """Asks until the job is over, as clients of the platform do."""
        async with asyncio.timeout(BOUND_S):
            while True:
                told = await self.post(f"status/{job_id}")
                if told["status"] not in {"IN_QUEUE", "IN_PROGRESS"}:
                    return told


@pytest.fixture
async def endpoint(url: str) -> AsyncIterator[Endpoint]:
    timeout = aiohttp.ClientTimeout(total=BOUND_S)
    async with aiohttp.ClientSession(f"{url}/v2/local/", timeout=timeout) as session:
        yield Endpoint(session)


ECHOES = [({"a": 0.1}, {"a": 0.1}), ([1, None], [1, None]), ("text", "text"), ({}, None)]


@pytest.mark.parametrize(("echo", "output"), ECHOES)
async def test_runsync(endpoint: Endpoint, echo: Any, output: Any) -> None:
    told = await endpoint.runsync({"echo": echo})
    assert (told["status"], told.get("output"), told["workerId"]) == ("COMPLETED", output, "echo-1")


async def test_jobs_run_side_by_side(endpoint: Endpoint) -> None:
    job_ids = [await endpoint.run({"await": "go"}) for _ in range(2)]
    assert (await endpoint.runsync({"signal": "go"}))["status"] == "COMPLETED"
    for job_id in job_ids:
        told = await endpoint.finished(job_id)
        assert (told["status"], told["output"]) == ("COMPLETED", {"done": True})


async def test_a_handler_that_raises(endpoint: Endpoint) -> None:
    told = await endpoint.runsync({"fail": "on purpose"})
    assert (told["status"], "output" in told) == ("FAILED", False)
    assert json.loads(told["error"])["error_message"] == "on purpose"


async def test_a_lone_surrogate_reaches_the_handler(endpoint: Endpoint) -> None:
    job_id = await endpoint.run({"await": "a\ud800b"})
    assert (await endpoint.runsync({"signal": "a\ud800b"}))["status"] == "COMPLETED"
    assert (await endpoint.finished(job_id))["status"] == "COMPLETED"


async def test_cancelling_stops_the_handler(endpoint: Endpoint) -> None:
    job_id = await endpoint.run({"hang": "it"})
    assert (await endpoint.runsync({"await": "it"}))["status"] == "COMPLETED"
    cancelled = {"id": job_id, "status": "CANCELLED"}
    assert await endpoint.post(f"cancel/{job_id}") == cancelled
    assert (await endpoint.runsync({"await": "it stopped"}))["status"] == "COMPLETED"


def openai_client(base_url: str) -> openai.OpenAI:
    transport = openai.DefaultHttpxClient(trust_env=False, timeout=BOUND_S)
    return openai.OpenAI(base_url=base_url, api_key="any", max_retries=0, http_client=transport)


@pytest.mark.parametrize("base", ["/v2/local/openai/v1", "/v1"])
def test_the_openai_client(url: str, base: str) -> None:
    with openai_client(url + base) as client:
        answer = client.embeddings.create(model="echo", input=["a", "b"], encoding_format="float")
    assert [item.embedding for item in answer.data] == [[0.5, 0.0], [0.5, 1.0]]


def test_the_openai_client_of_a_job_that_fails(url: str) -> None:
    with openai_client(f"{url}/v1") as client, pytest.raises(openai.InternalServerError) as failed:
        client.embeddings.create(model="echo", input=[])
    assert isinstance(failed.value.body, dict)
    assert failed.value.body["error_message"] == "no text"


def test_the_endpoint_client(url: str) -> None:
    told = subprocess.run(
        [sys.executable, "-c", ENDPOINT_CLIENT],
        env=clean_environment() | {"RUNPOD_ENDPOINT_BASE_URL": f"{url}/v2"},
        stdout=subprocess.PIPE,
        timeout=BOUND_S * 2,
        check=True,
    ).stdout
    assert json.loads(told) == {
        "run_sync": [1, 2],
        "run": {"a": 1},
        "failed": None,
        "cancelled": "CANCELLED",
        "health": ["jobs", "workers"],
    }


STREAM_CLIENT = """
import json
import runpod

endpoint = runpod.Endpoint("local", api_key="any")
job = endpoint.run({"input": {"items": ["a", {"b": 0.5}, 3]}})
print(json.dumps({"parts": list(job.stream()), "output": job.output(timeout=30)}))
"""
STREAM_WORKER = Path(__file__).parents[1] / "fakes" / "stream_worker.py"


def test_the_endpoint_client_of_a_job_that_streams() -> None:
    with EdgeServer(EdgeSettings(poll_s=0.5)) as edge:
        variables = worker_environment(edge.url, "local", "stream-1")
        with running([sys.executable, str(STREAM_WORKER)], clean_environment(**variables)):
            told = subprocess.run(
                [sys.executable, "-c", STREAM_CLIENT],
                env=clean_environment() | {"RUNPOD_ENDPOINT_BASE_URL": f"{edge.url}/v2"},
                stdout=subprocess.PIPE,
                timeout=BOUND_S * 2,
                check=True,
            ).stdout
    items = ["a", {"b": 0.5}, 3]
    assert json.loads(told) == {"parts": items, "output": items}


def test_a_fitness_check_that_fails_makes_the_worker_unhealthy() -> None:
    with EdgeServer() as edge:
        variables = worker_environment(edge.url, "local", "unfit") | {"FAKE_FITNESS": "bad"}
        unfit = clean_environment() | variables
        with running([sys.executable, str(STREAM_WORKER)], unfit) as worker:
            assert worker.wait(BOUND_S) == 1
        assert edge.call(report_of).workers["unfit"].failed_check == "is_fit"
        health = httpx.get(f"{edge.url}/v2/local/health", timeout=BOUND_S).json()
        assert (health["workers"]["unhealthy"], health["workers"]["ready"]) == (1, 0)
