"""The local load-balancing endpoint: its pool and limits, and `serve` with real workers."""

import json
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import psutil
import pytest

from http_worker import until
from infinity_worker.edge.balancer import WORKER_HEADER, BalancerSettings, create_balancer
from infinity_worker.edge.pool import Health, Pin, Pool
from infinity_worker.edge.server import AppServer
from processes import BOUND_S, clean_environment, running

PROGRAM = str(Path(sys.executable).parent / "infinity-worker")
KEY = "a key for tests"
CALLERS = 4


class Backend:
    """An application whose `/ping` answers what it is told, and which echoes everything else."""

    def __init__(self) -> None:
        self.ping = 204

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        body = b""
        while (message := await receive()).get("more_body"):
            body += message["body"]
        body += message.get("body", b"")
        if scope["path"] == "/break":
            raise ConnectionError
        status = self.ping if scope["path"] == "/ping" else 207
        names = [name.decode() for name, _ in scope["headers"]]
        told = [scope["raw_path"].decode(), scope["query_string"].decode(), body.decode(), names]
        headers = [(b"x-own", b"kept"), (b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        content = b"" if scope["path"] == "/ping" else json.dumps(told).encode()
        await send({"type": "http.response.body", "body": content})


@contextmanager
def endpoint(settings: BalancerSettings, *backends: Backend) -> Iterator[tuple[str, Pool]]:
    """An endpoint with workers named `w0`, `w1` and so on."""
    with ExitStack() as stack:
        pool = Pool(poll_s=0.02)
        for number, backend in enumerate(backends):
            server = stack.enter_context(AppServer(backend, log_level="critical"))
            pool.add(f"w{number}", server.url)
        app = create_balancer(settings, pool)
        closing = app.state.closing
        server = AppServer(app, before_shutdown=closing.set)
        yield stack.enter_context(server).url, pool


def until_health(pool: Pool, worker_id: str, health: Health) -> None:
    until(lambda: pool.backends[worker_id].health is health)


@pytest.mark.parametrize(
    ("header", "pin"),
    [
        (None, None),
        ("", None),
        ("w1", Pin("w1")),
        ("strict w1", Pin("w1", is_strict=True)),
        ("strict-resume w1", Pin("w1", is_strict=True)),
        ("strict", Pin("strict")),
        ("what is this", None),
    ],
)
def test_what_a_client_wishes_for(header: str | None, pin: Pin | None) -> None:
    assert Pin.read(header) == pin


def test_workers_come_into_the_pool_and_leave_it_by_their_pings() -> None:
    first, second = Backend(), Backend()
    with endpoint(BalancerSettings(no_worker_s=0.2), first, second) as (url, pool):
        until_health(pool, "w0", Health.INITIALIZING)
        nobody = httpx.post(f"{url}/v1/embeddings")
        assert nobody.status_code == 400
        assert "No worker" in nobody.json()["error"]

        first.ping = 200
        until_health(pool, "w0", Health.HEALTHY)
        for _ in range(4):
            assert httpx.get(url).headers[WORKER_HEADER] == "w0"
        second.ping = 200
        until_health(pool, "w1", Health.HEALTHY)
        assert {httpx.get(url).headers[WORKER_HEADER] for _ in range(8)} >= {"w1"}
        for wish in ("w0", "strict w0"):
            answers = [httpx.get(url, headers={WORKER_HEADER: wish}) for _ in range(4)]
            assert {answer.headers[WORKER_HEADER] for answer in answers} == {"w0"}

        first.ping = 503
        until_health(pool, "w0", Health.UNHEALTHY)
        assert httpx.get(url, headers={WORKER_HEADER: "w0"}).headers[WORKER_HEADER] == "w1"
        assert httpx.get(url, headers={WORKER_HEADER: "strict w0"}).status_code == 400


def test_a_request_waits_for_a_worker() -> None:
    backend = Backend()
    with (
        endpoint(BalancerSettings(), backend) as (url, pool),
        ThreadPoolExecutor(1) as thread,
    ):
        until_health(pool, "w0", Health.INITIALIZING)
        waiting = thread.submit(httpx.get, url, timeout=BOUND_S)
        backend.ping = 200
        assert waiting.result(BOUND_S).status_code == 207


def test_requests_and_answers_pass_as_they_are() -> None:
    backend = Backend()
    backend.ping = 200
    with endpoint(BalancerSettings(KEY, limit_bytes=1_000), backend) as (url, _pool):
        assert httpx.get(url).status_code == 401
        with httpx.Client(base_url=url, headers={"authorization": f"Bearer {KEY}"}) as client:
            reply = client.put("/a%2Fb//c?d=%20e", content=b"body", headers={"x-mine": "y"})
            path, query, body, names = reply.json()
            assert (path, query, body) == ("/a%2Fb//c", "d=%20e", "body")
            assert "x-mine" in names
            assert "authorization" not in names
            assert (reply.status_code, reply.headers["x-own"]) == (207, "kept")
            assert client.post("/", content=b"x" * 1_001).status_code == 413
            # The server behind it makes a 500 of an application that fails.
            assert client.get("/break").status_code == 500


def test_a_worker_that_does_not_listen_is_a_502() -> None:
    pool = Pool(poll_s=60.0)
    app = create_balancer(BalancerSettings(), pool)
    with AppServer(app, before_shutdown=app.state.closing.set) as server:
        pool.add("w0", "http://127.0.0.1:1")
        pool.backends["w0"].health = Health.HEALTHY
        assert httpx.get(server.url).status_code == 502


def until_said(lines: list[str], *phrases: str) -> None:
    """Wait until one was said after the other."""
    pattern = ".*".join(map(re.escape, phrases))
    until(lambda: re.search(pattern, "".join(lines), re.DOTALL) is not None)


def test_a_rolling_restart_under_load_fails_no_request(fake_engine: str) -> None:
    environment = clean_environment(
        INFINITY_URL=fake_engine, EDGE_API_KEY=KEY, PYTHONUNBUFFERED="1", DRAIN_DELAY="3"
    )
    command = [PROGRAM, "serve", "--type", "load-balancing", "--port", "0", "--workers", "2"]
    with running(command, environment, output=subprocess.PIPE) as process:
        lines: list[str] = []
        assert process.stdout is not None
        reading = threading.Thread(target=lambda: lines.extend(process.stdout or ()), daemon=True)
        reading.start()
        until_said(lines, "Ctrl-C")
        match = re.search(r"^OpenAI API: (http://\S+)$", "".join(lines), re.MULTILINE)
        assert match, lines
        stop = threading.Event()

        def call() -> set[str]:
            served_by = set()
            with openai.OpenAI(base_url=match[1], api_key=KEY, max_retries=0) as client:
                while not stop.is_set():
                    raw = client.embeddings.with_raw_response.create(model="fake-text", input="a")
                    assert raw.parse().usage.prompt_tokens == 1
                    served_by.add(raw.headers[WORKER_HEADER])
            return served_by

        with ThreadPoolExecutor(CALLERS) as threads:
            calls = [threads.submit(call) for _ in range(CALLERS)]
            try:
                workers = psutil.Process(process.pid).children()
                for number, victim in enumerate(sorted(workers, key=psutil.Process.create_time)):
                    victim.send_signal(signal.SIGTERM)
                    until_said(lines, f"worker {number} ended", f"worker {number} is healthy")
            finally:
                stop.set()
            served_by = set().union(*(each.result(BOUND_S) for each in calls))
        assert {"local-worker-0-1", "local-worker-1-1"} <= served_by
        process.send_signal(signal.SIGINT)
        assert process.wait(BOUND_S) == 130
        reading.join(BOUND_S)
