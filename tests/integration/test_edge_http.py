"""The edge over real HTTP, both sides by hand."""

import asyncio
import json
import logging
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any

import aiohttp
import pytest
from fastapi import FastAPI

from edge_api import BOUND_S, Api
from infinity_worker.edge.app import EdgeSettings, create_app
from infinity_worker.edge.server import AppServer, EdgeServer
from infinity_worker.edge.state import OversizedResults

POLL_S = 80.0
"""Far more than `BOUND_S`."""
SMALL = EdgeSettings(
    poll_s=0.05,
    runsync_s=0.05,
    oversized_results=OversizedResults.OPEN,
    openai_s=0.05,
    run_limit_bytes=100,
    runsync_limit_bytes=200,
    result_limit_bytes=300,
)


@pytest.fixture(scope="module")
def patient_url() -> Iterator[str]:
    with EdgeServer(EdgeSettings(poll_s=POLL_S)) as server:
        yield server.url


@pytest.fixture(scope="module")
def small_url() -> Iterator[str]:
    with EdgeServer(SMALL) as server:
        yield server.url


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    timeout = aiohttp.ClientTimeout(total=BOUND_S)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        yield session


@pytest.fixture
async def fresh(session: aiohttp.ClientSession) -> AsyncIterator[Api]:
    """An edge of the test's own, whose polls outlast the test."""
    server = EdgeServer(EdgeSettings(poll_s=POLL_S))
    await asyncio.to_thread(server.start)
    yield Api(session, server.url)
    await asyncio.to_thread(server.stop)


@pytest.fixture
def api(session: aiohttp.ClientSession, patient_url: str) -> Api:
    return Api(session, patient_url)


@pytest.fixture
def small(session: aiohttp.ClientSession, small_url: str) -> Api:
    return Api(session, small_url)


def waiting(work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    return asyncio.create_task(work)


async def test_a_run_from_the_queue_to_the_result(api: Api) -> None:
    accepted = await api.json("POST", "/run", json={"input": {"n": 1}, "s3Config": {}})
    job_id = accepted["id"]
    assert accepted == {"id": job_id, "status": "IN_QUEUE"}
    assert await api.json("GET", f"/status/{job_id}") == accepted
    assert await api.serve_one({"output": {"m": 2}}) == {"id": job_id, "input": {"n": 1}}
    told = await api.json("POST", f"/status/{job_id}")
    assert told.pop("delayTime") >= 0
    assert told.pop("executionTime") >= 0
    assert told == {"id": job_id, "status": "COMPLETED", "output": {"m": 2}, "workerId": "w"}


async def test_runsync_answers_with_the_result(api: Api) -> None:
    asking = waiting(api.json("POST", "/runsync?wait=300000", json={"input": [1]}))
    job = await api.serve_one({"error": "it broke"})
    told = await asking
    assert (told["id"], told["status"], told["error"]) == (job["id"], "FAILED", "it broke")
    assert job["id"].startswith("sync-")


async def test_runsync_tells_where_an_unfinished_job_stands(small: Api) -> None:
    queued = await small.json("POST", "/runsync", json={"input": 1})
    assert queued["status"] == "IN_QUEUE"
    assert (await small.json("GET", "/job-take/w?gpu=cpu"))["id"] == queued["id"]
    assert (await small.json("GET", f"/status/{queued['id']}"))["status"] == "IN_PROGRESS"


async def test_a_poll_is_answered_by_the_next_submission(fresh: Api) -> None:
    polling = waiting(fresh.json("GET", "/job-take/w?gpu=cpu"))
    await fresh.health(lambda told: told["workers"]["idle"] == 1)
    job_id = await fresh.run(1)
    assert (await polling)["id"] == job_id


async def test_a_batch_is_taken_in_order(fresh: Api) -> None:
    ids = [await fresh.run(n) for n in range(3)]
    taken = await fresh.json("GET", "/job-take-batch/w?gpu=cpu&batch_size=2")
    assert taken == [{"id": ids[0], "input": 0}, {"id": ids[1], "input": 1}]
    assert [job["id"] for job in await fresh.json("GET", "/job-take-batch/w?gpu=cpu")] == ids[2:]


async def test_cancelling_reaches_the_worker(fresh: Api) -> None:
    job_id = await fresh.run(1)
    await fresh.json("GET", "/job-take/w?gpu=cpu")
    polling = waiting(fresh.json("GET", "/job-stop/w?gpu=cpu"))
    assert await fresh.json("POST", f"/cancel/{job_id}") == {"id": job_id, "status": "CANCELLED"}
    assert await polling == {"jobsToStop": [job_id]}
    assert await fresh.done("w", job_id, '{"output": 1}') == 404
    assert (await fresh.json("GET", f"/status/{job_id}"))["status"] == "CANCELLED"


async def test_health_counts_jobs_and_workers(fresh: Api) -> None:
    for n in range(4):
        await fresh.run(n)
    await fresh.serve_one({"output": 1})
    await fresh.serve_one({"error": "x"})
    await fresh.json("GET", "/job-take/w?gpu=cpu")
    assert await fresh.status("GET", "/ping/other?gpu=cpu&job_id=a,b") == (200, b"")
    jobs = {"completed": 1, "failed": 1, "inProgress": 1, "inQueue": 1, "retried": 0}
    workers = {"idle": 1, "initializing": 0, "ready": 2, "running": 1}
    workers |= {"throttled": 0, "unhealthy": 0}
    assert await fresh.json("GET", "/health") == {"jobs": jobs, "workers": workers}


async def test_a_taker_that_disconnects_loses_no_job(fresh: Api) -> None:
    host, port = fresh.root.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"GET /v2/local/job-take/gone?gpu=cpu HTTP/1.1\r\nHost: edge\r\n\r\n")
    await fresh.health(lambda told: told["workers"]["idle"] == 1)
    writer.close()
    ids = [await fresh.run(n) for n in range(2)]
    async with asyncio.timeout(BOUND_S):
        taken = [(await fresh.json("GET", "/job-take/here?gpu=cpu"))["id"] for _ in ids]
    # The one that was in the leaving taker's hands may come second: never lost, never doubled.
    assert sorted(taken) == sorted(ids)
    assert await reader.read() == b""


async def leave_at_once(app: FastAPI, path: str) -> None:
    """A request whose client is gone by the time it is read, which no socket can be made to be."""

    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    async def send(_message: Any) -> None:
        pass

    scope = {"type": "http", "method": "GET", "path": path, "query_string": b"", "headers": []}
    await app(scope, receive, send)


async def test_what_was_assigned_to_a_client_that_is_gone_is_given_back() -> None:
    app = create_app(EdgeSettings(poll_s=POLL_S))
    queue = app.state.edge.queue
    jobs = [queue.submit(n, sync=False) for n in range(2)]
    queue.stops.leave("w", ["x"])
    await leave_at_once(app, "/v2/local/job-take/w")
    await leave_at_once(app, "/v2/local/job-take-batch/w")
    await leave_at_once(app, "/v2/local/job-stop/w")
    assert queue.counts()["inQueue"] == 2
    assert await queue.take("w", 2) == jobs
    assert await queue.stops.collect("w") == ["x"]


OPENAI_ENDS = [
    ({"output": [{"data": []}]}, 200, {"data": []}),
    ({"output": {"data": []}}, 200, {"data": []}),
    ({"output": [1, 2]}, 200, [1, 2]),
    ({"error": "it broke"}, 500, {"error": {"message": "it broke"}}),
    ({"error": '{"message": "m", "code": 429}'}, 500, {"error": {"message": "m", "code": 429}}),
    ({"output": {"x": 1}, "error": {"message": "m"}}, 500, {"error": {"message": "m"}}),
]


@pytest.mark.parametrize(("result", "status", "body"), OPENAI_ENDS)
async def test_the_openai_route(api: Api, result: Any, status: int, body: Any) -> None:
    asking = waiting(api.status("POST", "/openai/v1/embeddings", json={"input": "hi"}))
    job = await api.serve_one(result)
    assert job["input"] == {"openai_route": "/v1/embeddings", "openai_input": {"input": "hi"}}
    answered, content = await asking
    assert (answered, json.loads(content)) == (status, body)
    assert (await api.status("GET", f"/status/{job['id']}"))[0] == 404


async def test_openai_without_the_endpoints_path_and_without_a_body(api: Api) -> None:
    async def models() -> Any:
        async with api.session.get(f"{api.root}/v1/models/org/name") as response:
            return await response.json()

    asking = waiting(models())
    job = await api.serve_one({"output": [{"id": "org/name"}]})
    assert job["input"] == {"openai_route": "/v1/models/org/name", "openai_input": {}}
    assert await asking == {"id": "org/name"}


async def test_openai_in_vain(small: Api) -> None:
    status, body = await small.status("GET", "/openai/v1/models")
    assert (status, json.loads(body)) == (504, {"error": "The job has not finished within 0.05 s."})


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"", "The body is not valid JSON."),
        (b"{", "The body is not valid JSON."),
        (b'{"input": NaN}', "The body is not valid JSON."),
        (b"[" * 100_000, "The body is not valid JSON."),
        (b"[1]", "The body is not a JSON object."),
        (b'{"inputs": 1}', "The body has no 'input'."),
        (b'{"input": ' + b"[" * 1000 + b"]" * 1000 + b"}", "The input is nested too deeply."),
    ],
)
@pytest.mark.parametrize("path", ["/run", "/runsync"])
async def test_a_bad_body_is_refused(api: Api, path: str, body: bytes, error: str) -> None:
    status, content = await api.status("POST", path, data=body)
    assert (status, json.loads(content)) == (400, {"error": error})


@pytest.mark.parametrize("wait", ["999", "300001", "soon", "-1000", ""])
async def test_a_bad_wait_is_refused(api: Api, wait: str) -> None:
    path = f"/runsync?wait={wait}"
    status, content = await api.status("POST", path, json={"input": 1})
    assert (status, "1000 to 300000" in json.loads(content)["error"]) == (400, True)


def in_chunks(size: int) -> Callable[[], AsyncIterator[bytes]]:
    """A body whose length is not declared."""

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(size):
            yield b" "

    return chunks


LIMITS = [("/run", 100), ("/runsync", 200), ("/openai/v1/embeddings", 200)]


@pytest.mark.parametrize(("path", "limit"), LIMITS)
async def test_a_body_over_the_limit_is_refused(small: Api, path: str, limit: int) -> None:
    message = {"error": f"The body is larger than {limit} bytes."}
    declared = await small.status("POST", path, data=b" " * (limit + 1))
    counted = await small.status("POST", path, data=in_chunks(limit + 1)())
    for status, content in (declared, counted):
        assert (status, json.loads(content)) == (413, message)
    at_the_limit = b'{"input": 1}'.ljust(limit)
    assert (await small.status("POST", path, data=at_the_limit))[0] in {200, 504}


async def test_results_that_are_refused(small: Api) -> None:
    job_id = await small.run(1)
    await small.json("GET", "/job-take-batch/w?gpu=cpu&batch_size=99")
    assert await small.done("w", job_id, json.dumps({"output": "x" * 300})) == 400
    assert await small.done("w", job_id, "output=1") == 400
    assert await small.done("w", job_id, "[1]") == 400
    assert await small.done("w", "no-such-job", "{}") == 404
    assert await small.done("w", job_id, '{"status": "IN_PROGRESS", "output": "half"}') == 200
    assert (await small.json("GET", f"/status/{job_id}"))["output"] == "half"
    assert await small.done("w", job_id, '{"output": 1}') == 200
    assert await small.done("w", job_id, '{"output": 2}') == 404
    assert (await small.json("GET", f"/status/{job_id}"))["output"] == 1


async def test_odd_text_and_numbers_pass_through(api: Api) -> None:
    body = b'{"input": {"text": "a\\ud800b", "n": 0.1}}'
    job_id = (await api.json("POST", "/run", data=body))["id"]
    job = await api.json("GET", "/job-take/w?gpu=cpu")
    assert job["input"] == {"text": "a\ud800b", "n": 0.1}
    assert await api.done("w", job_id, '{"output": ["\\ud800", NaN, 0.1]}') == 200
    assert (await api.json("GET", f"/status/{job_id}"))["output"] == ["\ud800", None, 0.1]


UNKNOWN = [
    ("POST", "/v2/other/run"),
    ("POST", "/v2/other/runsync"),
    ("GET", "/v2/other/health"),
    ("GET", "/v2/other/job-take/w"),
    ("POST", "/v2/other/openai/v1/embeddings"),
    ("GET", "/v2/local/status/no-such-job"),
    ("POST", "/v2/local/cancel/no-such-job"),
    ("GET", "/v2/local/nothing"),
]


@pytest.mark.parametrize(("method", "path"), UNKNOWN)
async def test_what_is_not_there(api: Api, method: str, path: str) -> None:
    async with api.session.request(method, api.root + path) as response:
        assert response.status == 404
        assert set(await response.json()) == {"error"}


@pytest.mark.parametrize("size", ["0", "-1", "x"])
async def test_a_bad_batch_size_is_refused(api: Api, size: str) -> None:
    assert (await api.status("GET", f"/job-take-batch/w?batch_size={size}"))[0] == 400


async def test_polls_run_out(small: Api) -> None:
    for path in ("/job-take/idle", "/job-take-batch/idle?batch_size=3", "/job-stop/idle"):
        assert await small.status("GET", path) == (204, b"")


async def test_a_stop_ends_open_waits(
    session: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture
) -> None:
    server = EdgeServer(EdgeSettings(poll_s=POLL_S))
    await asyncio.to_thread(server.start)
    api = Api(session, server.url)
    asking = waiting(api.json("POST", "/runsync", json={"input": 1}))
    await api.health(lambda told: told["jobs"]["inQueue"] == 1)
    await api.json("GET", "/job-take/w?gpu=cpu")
    chatting = waiting(api.status("POST", "/openai/v1/embeddings", json={}))
    await api.health(lambda told: told["jobs"]["inQueue"] == 1)
    await api.json("GET", "/job-take/w?gpu=cpu")
    polls = [waiting(api.status("GET", path)) for path in ("/job-take/x", "/job-stop/y")]
    await api.health(lambda told: told["workers"]["ready"] == 3)
    with caplog.at_level(logging.WARNING):
        await asyncio.to_thread(server.stop)
    assert await asyncio.gather(*polls) == [(204, b"")] * 2
    assert (await asking)["status"] == "IN_PROGRESS"
    assert (await chatting)[0] == 503
    assert not caplog.records


async def test_a_stop_does_not_wait_for_an_application_that_hangs(
    session: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture
) -> None:
    app, reached = FastAPI(), asyncio.Event()
    loop = asyncio.get_running_loop()

    @app.get("/v2/local/hang")
    async def hang() -> None:
        loop.call_soon_threadsafe(reached.set)
        await asyncio.Event().wait()

    server = AppServer(app, grace_s=1)
    await asyncio.to_thread(server.start)
    asking = waiting(Api(session, server.url).status("GET", "/hang"))
    async with asyncio.timeout(BOUND_S):
        await reached.wait()
    with caplog.at_level(logging.CRITICAL, "uvicorn.error"):
        await asyncio.to_thread(server.stop)
    assert (await asking)[0] == 500


def test_a_port_that_is_taken_is_an_error_at_the_start() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        server = EdgeServer(port=taken.getsockname()[1])
        with pytest.raises(OSError, match="in use"):
            server.start()
        server.stop()
