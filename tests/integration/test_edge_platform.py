"""What the edge does beyond passing jobs on: limits, keys, webhooks, parts, workers that die."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from edge_api import BOUND_S, Api
from infinity_worker.edge.server import EdgeServer, OpenEdgeError
from infinity_worker.edge.state import EdgeSettings, OpenAIErrors

QUICK = EdgeSettings(
    poll_s=0.05,
    stream_s=0.05,
    part_limit_bytes=100,
    stream_limit_bytes=150,
    result_limit_bytes=300,
    webhook_pause_s=0.01,
    worker_lost_s=0.2,
    openai_errors=OpenAIErrors.HTTP,
    empty_openai_input=False,
)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with EdgeServer(QUICK) as server:
        yield server.url


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=BOUND_S)) as session:
        yield session


@pytest.fixture
def api(session: aiohttp.ClientSession, url: str) -> Api:
    return Api(session, url)


@asynccontextmanager
async def edge(session: aiohttp.ClientSession, settings: EdgeSettings) -> AsyncIterator[Api]:
    server = EdgeServer(settings)
    await asyncio.to_thread(server.start)
    try:
        yield Api(session, server.url)
    finally:
        await asyncio.to_thread(server.stop)


async def submit(api: Api, **body: Any) -> str:
    job_id: str = (await api.json("POST", "/run", json={"input": 1, **body}))["id"]
    return job_id


async def ended(api: Api, job_id: str) -> dict[str, Any]:
    async with asyncio.timeout(BOUND_S):
        while True:
            told: dict[str, Any] = await api.json("GET", f"/status/{job_id}")
            if told["status"] not in {"IN_QUEUE", "IN_PROGRESS"}:
                return told


async def gone(api: Api, job_id: str) -> None:
    async with asyncio.timeout(BOUND_S):
        while (await api.status("GET", f"/status/{job_id}"))[0] != 404:
            pass


async def test_a_job_that_runs_too_long_times_out_and_can_be_retried(api: Api) -> None:
    job_id = await submit(api, policy={"executionTimeout": 30})
    await api.json("GET", "/job-take/a")
    told = await ended(api, job_id)
    assert (told["status"], "output" in told) == ("TIMED_OUT", False)
    assert await api.json("GET", "/job-stop/a") == {"jobsToStop": [job_id]}
    assert await api.done("a", job_id, '{"output": 1}') == 404
    retried = await api.json("POST", f"/retry/{job_id}")
    assert retried == {"id": job_id, "status": "IN_QUEUE"}
    assert (await api.serve_one({"output": 2}, "b"))["id"] == job_id
    assert (await ended(api, job_id))["output"] == 2
    assert (await api.status("POST", f"/retry/{job_id}"))[0] == 400
    assert (await api.status("POST", "/retry/no-such-job"))[0] == 404


async def test_a_time_to_live_ends_a_job_wherever_it_is(api: Api) -> None:
    ids = [await submit(api, policy={"ttl": 300}) for _ in range(2)]
    await api.json("GET", "/job-take/a")
    for job_id in ids:
        await gone(api, job_id)
    assert await api.json("GET", "/job-stop/a") == {"jobsToStop": ids[:1]}
    assert await api.status("GET", "/job-take/a") == (204, b"")


async def test_a_caller_who_waits_for_a_job_that_is_gone_is_told(api: Api) -> None:
    status, _ = await api.status("POST", "/runsync", json={"input": 1, "policy": {"ttl": 10}})
    assert status == 404


async def test_the_time_to_live_of_a_result_can_be_set(api: Api) -> None:
    job_id = await submit(api)
    await api.serve_one({"output": 1})
    assert (await api.json("GET", f"/status/{job_id}?ttl=20"))["output"] == 1
    await gone(api, job_id)


BAD_OPTIONS: list[dict[str, Any]] = [
    {"policy": 1},
    {"policy": {"ttl": "1000"}},
    {"policy": {"ttl": 0}},
    {"policy": {"ttl": True}},
    {"policy": {"executionTimeout": -5}},
    {"policy": {"executionTimeout": 10**12}},
    {"policy": {"lowPriority": "no"}},
    {"webhook": "ftp://example.org"},
    {"webhook": "http://"},
    {"webhook": "http://[bad"},
    {"webhook": 5},
]


@pytest.mark.parametrize("options", BAD_OPTIONS)
async def test_options_that_cannot_be_used_are_refused(api: Api, options: dict[str, Any]) -> None:
    status, content = await api.status("POST", "/run", json={"input": 1, **options})
    assert status == 400
    assert f"'{next(iter(options))}" in json.loads(content)["error"]


@pytest.mark.parametrize("ttl", ["0", "soon", "1" * 50])
async def test_a_bad_ttl_is_refused(api: Api, ttl: str) -> None:
    assert (await api.status("GET", f"/status/any?ttl={ttl}"))[0] == 400


async def test_purging_the_queue(api: Api) -> None:
    ids = [await submit(api) for _ in range(3)]
    await api.json("GET", "/job-take/a")
    assert await api.json("POST", "/purge-queue") == {"removed": 2, "status": "completed"}
    assert (await api.json("GET", f"/status/{ids[0]}"))["status"] == "IN_PROGRESS"
    assert (await api.status("GET", f"/status/{ids[2]}"))[0] == 404
    assert await api.done("a", ids[0], "{}") == 200


async def test_parts_of_a_result_are_streamed(api: Api) -> None:
    job_id = await submit(api)
    await api.json("GET", "/job-take/a")
    assert await api.json("GET", f"/stream/{job_id}") == {"status": "IN_PROGRESS", "stream": []}
    path = f"/job-stream/a/{job_id}?gpu=cpu&isStream=false"
    for part in (b'{"output": "a"}', b'{"output": {"b": 0.1}}'):
        assert (await api.status("POST", path, data=part))[0] == 200
    assert (await api.status("POST", path, data=b'{"output": "%s"}' % (b"x" * 100)))[0] == 400
    assert (await api.status("POST", path, data=b"no json"))[0] == 400
    assert (await api.status("POST", f"/job-stream/b/{job_id}", data=b"{}"))[0] == 404
    stream = [{"output": "a"}, {"output": {"b": 0.1}}]
    assert await api.json("GET", f"/stream/{job_id}") == {"status": "IN_PROGRESS", "stream": stream}
    for size in (80, 80):
        last, _ = await api.status("POST", path, data=b'{"output": "%s"}' % (b"x" * size))
    assert last == 400
    assert await api.done("a", job_id, '{"output": "all"}') == 200
    told = await api.json("GET", f"/stream/{job_id}")
    assert (told["status"], len(told["stream"])) == ("COMPLETED", 1)
    assert (await api.status("GET", "/stream/no-such-job"))[0] == 404


async def test_a_result_that_is_too_large_ends_the_job_without_an_output(api: Api) -> None:
    job_id = await submit(api)
    await api.json("GET", "/job-take/a")
    assert await api.done("a", job_id, json.dumps({"output": "x" * 300})) == 400
    told = await ended(api, job_id)
    assert (told["status"], "output" in told) == ("COMPLETED", False)
    assert await api.done("a", job_id, '{"output": 1}') == 404


CODES = [
    ({"output": [{"error": {"message": "m", "code": 404}}]}, 404),
    ({"error": '{"message": "m", "code": 429}'}, 429),
    ({"error": '{"message": "m", "code": 200}'}, 500),
    ({"error": '{"message": "m", "code": "429"}'}, 500),
    ({"error": "it broke"}, 500),
    ({"output": [{"data": []}]}, 200),
    ({"output": [{"error": "odd"}]}, 200),
]


@pytest.mark.parametrize(("result", "code"), CODES)
async def test_an_errors_own_code_can_be_the_status(api: Api, result: Any, code: int) -> None:
    asking = asyncio.create_task(api.status("POST", "/openai/v1/embeddings", json={}))
    await api.health(lambda told: told["jobs"]["inQueue"] == 1)
    await api.serve_one(result)
    status, content = await asking
    assert status == code
    assert ("error" in json.loads(content)) == (code != 200 or "error" in str(result))


async def test_a_request_without_a_body_can_lack_its_openai_input(api: Api) -> None:
    asking = asyncio.create_task(api.status("GET", "/openai/v1/models"))
    await api.health(lambda told: told["jobs"]["inQueue"] == 1)
    job = await api.serve_one({"output": []})
    assert job["input"] == {"openai_route": "/v1/models"}
    assert (await asking)[0] == 200


class Receiver:
    """A client's server that is told of finished jobs, and refuses as often as it is asked to."""

    def __init__(self) -> None:
        self.refuse = 0
        self.got: asyncio.Queue[tuple[int, Any]] = asyncio.Queue()
        self.url = ""

    async def hook(self, request: web.Request) -> web.Response:
        status = 500 if self.refuse > 0 else 200
        self.refuse -= 1
        await self.got.put((status, await request.json()))
        return web.Response(status=status)

    async def next(self) -> tuple[int, Any]:
        async with asyncio.timeout(BOUND_S):
            return await self.got.get()


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    receiver, app = Receiver(), web.Application()
    app.add_routes([web.post("/hook", receiver.hook)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    receiver.url = "http://{}:{}/hook".format(*runner.addresses[0][:2])
    yield receiver
    await runner.cleanup()


async def test_a_webhook_is_told_what_status_says_and_what_was_asked(
    api: Api, receiver: Receiver
) -> None:
    job_id = await submit(api, webhook=receiver.url, input={"a": 0.1})
    await api.serve_one({"output": "\ud800"})
    told = await ended(api, job_id) | {"input": {"a": 0.1}, "webhook": receiver.url}
    assert await receiver.next() == (200, told)


@pytest.mark.parametrize(("refusals", "statuses"), [(1, [500, 200]), (2, [500, 500, 200])])
async def test_a_webhook_is_tried_three_times(
    api: Api, receiver: Receiver, refusals: int, statuses: list[int]
) -> None:
    receiver.refuse = refusals
    job_id = await submit(api, webhook=receiver.url)
    await api.json("POST", f"/cancel/{job_id}")
    tries = [await receiver.next() for _ in statuses]
    assert [status for status, _ in tries] == statuses
    assert {body["status"] for _, body in tries} == {"CANCELLED"}


async def test_the_jobs_of_a_worker_whose_pings_stop_go_to_another(api: Api) -> None:
    job_id = await submit(api)
    await api.status("GET", "/ping/silent")
    assert (await api.json("GET", "/job-take/silent"))["id"] == job_id
    before = (await api.json("GET", "/health"))["jobs"]["retried"]
    await api.health(lambda told: told["jobs"]["retried"] > before)
    assert (await api.serve_one({"output": "heir's"}, "heir"))["id"] == job_id
    assert await api.done("silent", job_id, '{"output": "late"}') == 404
    told = await ended(api, job_id)
    assert (told["output"], told["workerId"]) == ("heir's", "heir")
    # It was only slow: it speaks, so it gets jobs again.
    job_id = await submit(api)
    assert (await api.serve_one({"output": 1}, "silent"))["id"] == job_id


async def test_an_unhealthy_worker_is_shown_and_gets_no_jobs(api: Api) -> None:
    await api.status("GET", "/ping/sick?status=unhealthy&check=gpu")
    assert (await api.json("GET", "/health"))["workers"]["unhealthy"] == 1
    job_id = await submit(api)
    assert await api.status("GET", "/job-take/sick") == (204, b"")
    await api.status("GET", "/ping/sick")
    assert (await api.json("GET", "/health"))["workers"]["unhealthy"] == 0
    assert (await api.serve_one({"output": 1}, "sick"))["id"] == job_id


async def test_an_edge_that_is_full_says_so(session: aiohttp.ClientSession) -> None:
    async with edge(session, EdgeSettings(max_jobs=1)) as full:
        await full.run(1)
        status, content = await full.status("POST", "/run", json={"input": 2})
    assert (status, list(json.loads(content))) == (429, ["error"])


KEYED = EdgeSettings(api_key="client clé", worker_token="worker token", poll_s=0.05)  # noqa: S106  # made up here
CLIENT_CALLS = [
    ("GET", "/v2/local/health"),
    ("POST", "/v2/local/run"),
    ("POST", "/v2/local/openai/v1/embeddings"),
    ("PUT", "/v2/local/openai/v1/x"),
    ("POST", "/v1/embeddings"),
]
WORKER_CALLS = [
    ("GET", "/v2/local/job-take/w"),
    ("GET", "/v2/local/job-take-batch/w"),
    ("GET", "/v2/local/job-stop/w"),
    ("GET", "/v2/local/ping/w"),
    ("POST", "/v2/local/job-done/w/x"),
    ("POST", "/v2/local/job-stream/w/x"),
]


@pytest.fixture(scope="module")
def keyed_url() -> Iterator[str]:
    with EdgeServer(KEYED, host="0.0.0.0") as server:  # noqa: S104  # allowed with a key
        yield server.local_url


@pytest.mark.parametrize(("method", "path"), CLIENT_CALLS + WORKER_CALLS)
async def test_without_the_right_key_nothing_works(
    session: aiohttp.ClientSession, keyed_url: str, method: str, path: str
) -> None:
    other = "worker token" if (method, path) in CLIENT_CALLS else "client clé"
    for key in (None, "", "Bearer", "Bearer wrong", "Bearer " + other, other, "\u00fe"):
        headers = {} if key is None else {"Authorization": key}
        async with session.request(method, keyed_url + path, headers=headers) as answer:
            assert answer.status == 401
            assert answer.headers["WWW-Authenticate"] == "Bearer"
            assert list(await answer.json()) == ["error"]


@pytest.mark.parametrize("form", ["Bearer {}", "bearer {}", "{}"])
async def test_the_right_key_opens_one_side(
    session: aiohttp.ClientSession, keyed_url: str, form: str
) -> None:
    for key, path, status in [("client clé", "health", 200), ("worker token", "job-take/w", 204)]:
        headers = {"Authorization": form.format(key)}
        async with session.get(f"{keyed_url}/v2/local/{path}", headers=headers) as answer:
            assert answer.status == status


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])  # noqa: S104  # refused
@pytest.mark.parametrize("settings", [EdgeSettings(), EdgeSettings(api_key="k")])
def test_no_edge_is_open_to_the_network_without_keys(host: str, settings: EdgeSettings) -> None:
    with pytest.raises(OpenEdgeError, match="key"):
        EdgeServer(settings, host=host)
