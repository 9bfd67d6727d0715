"""The worker as an HTTP server: real processes, the fake engine behind them."""

import gzip
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from backports import zstd
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from corpus import Case, bad, data_uri, good
from fakes.fake_engine import DEADLY, MODELS, embedding_of
from hostile import hostile_body
from http_worker import HttpWorker, free_port, running_http_worker, until
from processes import BOUND_S, TESTS, clean_environment, running, write_engine_program

LIMIT = 1_000_000
KEYS = ("first-key", "second-key")
BODY = {"input": "a text"}
AT_ONCE = 20
SLOW = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]


@pytest.fixture(scope="module")
def engine_url() -> Iterator[str]:
    program = [sys.executable, str(TESTS / "fakes" / "fake_engine.py")]
    with running(program, clean_environment(), output=subprocess.PIPE) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()


@pytest.fixture(scope="module")
def server(engine_url: str) -> Iterator[HttpWorker]:
    """One that lets anybody in."""
    limit = str(LIMIT)
    with running_http_worker(INFINITY_URL=engine_url, REQUEST_LIMIT_BYTES=limit) as worker:
        worker.until_ping(200)
        yield worker


@pytest.fixture(scope="module")
def guarded(engine_url: str) -> Iterator[HttpWorker]:
    """One with keys, and little time for a request."""
    variables = {"INFINITY_URL": engine_url, "API_KEY": ";".join(KEYS), "JOB_TIMEOUT": "1"}
    variables["ENGINE_TIMEOUT"] = "1"
    with running_http_worker(**variables) as worker:
        worker.until_ping(200)
        yield worker


@pytest.fixture
def set_mode(engine_url: str) -> Iterator[Callable[[str], None]]:
    """Changes how the engine behaves, for one test."""

    def set_mode(mode: str) -> None:
        httpx.post(f"{engine_url}/mode/{mode}")

    yield set_mode
    set_mode("ok")


def error_of(reply: httpx.Response) -> dict[str, Any]:
    """The error of a reply, which has the contract's shape and code."""
    error: dict[str, Any] = reply.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["code"] == reply.status_code
    return error


def metric(worker: HttpWorker, name: str, **labels: str) -> float:
    """What the worker has counted, summed over the labels that are not given."""
    text = httpx.get(f"{worker.url}/metrics").text
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == f"infinity_worker_{name}" and labels.items() <= sample.labels.items()
    )


@pytest.mark.parametrize("path", ["/v1/embeddings", "/embeddings", "/v1/embeddings/"])
def test_embeddings_are_the_bare_object(server: HttpWorker, path: str) -> None:
    reply = httpx.post(server.url + path, json={"input": ["b", "a"], "model": "fake-text"})
    assert reply.status_code == 200
    answer = reply.json()
    assert answer["object"] == "list"
    for entry, text in zip(answer["data"], "ba", strict=True):
        assert entry["embedding"] == pytest.approx(embedding_of(text).tolist())


@pytest.mark.parametrize("path", ["/v1/models", "/models"])
def test_models(server: HttpWorker, path: str) -> None:
    reply = httpx.get(server.url + path)
    assert [entry["id"] for entry in reply.json()["data"]] == list(MODELS)
    assert httpx.head(server.url + path).content == b""


@pytest.mark.parametrize(
    ("method", "path", "content", "headers", "status", "kind"),
    [
        ("POST", "/v1/nothing", b"{}", {}, 404, "not_found_error"),
        ("POST", "/", b"{}", {}, 404, "not_found_error"),
        ("POST", "/v1/embeddings", b'{"input": ["a"], "model": "x"}', {}, 404, "model_not_found"),
        ("GET", "/v1/embeddings", b"", {}, 405, "invalid_request_error"),
        ("DELETE", "/v1/embeddings", b"", {}, 405, "invalid_request_error"),
        ("POST", "/v1/models", b"{}", {}, 405, "invalid_request_error"),
        ("POST", "/v1/models/fake-text", b"{}", {}, 405, "invalid_request_error"),
        ("GET", "/v1/models/gpt", b"", {}, 404, "model_not_found"),
        ("POST", "/ping", b"", {}, 405, "invalid_request_error"),
        ("POST", "/metrics", b"", {}, 405, "invalid_request_error"),
        ("POST", "/v1/embeddings", b"", {}, 400, "invalid_request_error"),
        ("POST", "/v1/embeddings", b"{", {}, 400, "invalid_request_error"),
        ("POST", "/v1/embeddings", b"[" * 2_000, {}, 400, "invalid_request_error"),
        ("POST", "/v1/embeddings", b'{"input": NaN}', {}, 400, "invalid_request_error"),
        ("POST", "/v1/embeddings", b"[1]", {}, 400, "invalid_request_error"),
        ("POST", "/v1/embeddings", b'{"input": [""]}', {}, 200, ""),
        ("POST", "/v1/embeddings", b"x", {"content-encoding": "br"}, 415, "invalid_request_error"),
        (
            "POST",
            "/v1/embeddings",
            b"x",
            {"content-encoding": "zstd"},
            400,
            "invalid_request_error",
        ),
        ("POST", "/v1/embeddings", b" " * (LIMIT + 1), {}, 413, "request_too_large"),
    ],
)
def test_every_error_has_its_status_and_the_contracts_shape(
    server: HttpWorker,
    method: str,
    path: str,
    content: bytes,
    headers: dict[str, str],
    status: int,
    kind: str,
) -> None:
    reply = httpx.request(method, server.url + path, content=content, headers=headers)
    assert reply.status_code == status
    if kind:
        assert error_of(reply)["type"] == kind
    assert ("allow" in reply.headers) == (status == 405)


def test_a_body_without_a_length_is_capped_too(server: HttpWorker) -> None:
    chunks = (b" " * 100_000 for _ in range(LIMIT // 100_000 + 1))
    assert httpx.post(f"{server.url}/embeddings", content=chunks).status_code == 413


@pytest.mark.parametrize(
    ("encoding", "compress"), [("gzip", gzip.compress), ("zstd", zstd.compress)]
)
def test_compressed_bodies(
    server: HttpWorker, encoding: str, compress: Callable[[bytes], bytes]
) -> None:
    headers = {"content-encoding": encoding}
    with httpx.Client(base_url=server.url, headers=headers) as client:
        good = client.post("/v1/embeddings", content=compress(json.dumps(BODY).encode()))
        assert good.json()["usage"]["prompt_tokens"] == 2
        bomb = client.post("/v1/embeddings", content=compress(b" " * 100 * LIMIT))
        assert error_of(bomb)["code"] == 413


def test_every_image_of_the_corpus_has_its_status(server: HttpWorker) -> None:
    cases = [case for case in (*good(), *bad()) if len(case.raw) < LIMIT // 2]
    with ThreadPoolExecutor(AT_ONCE) as threads, httpx.Client(timeout=BOUND_S) as client:

        def send(case: Case) -> httpx.Response:
            body = {"model": "fake-clip", "input": [{"image": data_uri(case.raw)}, "a text"]}
            return client.post(f"{server.url}/v1/embeddings", json=body)

        for case, reply in zip(cases, threads.map(send, cases), strict=True):
            assert reply.status_code in ({200, 400} if case.code == 0 else {case.code}), case.name
            if reply.status_code == 200:
                assert reply.json()["usage"]["images"] == 1
            else:
                assert error_of(reply)["param"] == "input[0]"


def test_connections_are_kept_alive(server: HttpWorker) -> None:
    with socket.create_connection(httpx.URL(server.url).netloc.decode().split(":")) as connection:  # type: ignore[arg-type]  # a host and a port
        connection.settimeout(BOUND_S)
        for _ in range(3):
            connection.sendall(b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n")
            assert connection.recv(4_096).startswith(b"HTTP/1.1 200")


def test_one_client_that_hangs_up_takes_its_work_along(
    server: HttpWorker, engine_url: str, set_mode: Callable[[str], None]
) -> None:
    def waiting() -> int:
        return int(httpx.get(f"{engine_url}/waiting").json())

    set_mode("wait")
    body = json.dumps(BODY).encode()
    head = f"POST /embeddings HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    address = httpx.URL(server.url)
    with socket.create_connection((address.host, address.port or 0)) as connection:
        connection.sendall(head.encode() + body)
        until(lambda: waiting() == 1)
    until(lambda: waiting() == 0)
    until(lambda: metric(server, "requests_in_progress") == 0)
    assert "outcome=stopped" in server.read_log()


def test_keys(guarded: HttpWorker) -> None:
    def status(path: str, authorization: str | None) -> int:
        headers = {} if authorization is None else {"authorization": authorization}
        return httpx.get(guarded.url + path, headers=headers).status_code

    for key in KEYS:
        assert status("/v1/models", f"Bearer {key}") == 200
        assert status("/v1/models", f"bearer  {key}") == 200
    for wrong in (
        None,
        "",
        KEYS[0],
        "Bearer",
        "Bearer x",
        f"Basic {KEYS[0]}",
        "Bearer first-keyx",
    ):
        for path in ("/v1/models", "/health", "/metrics", "/nothing"):
            assert status(path, wrong) == 401, (path, wrong)
    assert status("/ping", None) == 200
    reply = httpx.post(f"{guarded.url}/v1/embeddings", json=BODY)
    assert reply.headers["www-authenticate"] == "Bearer"
    assert error_of(reply)["type"] == "authentication_error"
    assert not any(key in guarded.read_log() for key in KEYS)


def openai_client(worker: HttpWorker, key: str = "k") -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{worker.url}/v1", api_key=key, max_retries=0)


def test_the_openai_client(server: HttpWorker) -> None:
    with openai_client(server) as client:
        reply = client.embeddings.create(model="fake-text", input=["a", "b c"])
        assert reply.data[1].embedding == pytest.approx(embedding_of("b c").tolist())
        assert reply.usage.prompt_tokens == 3
        assert [model.id for model in client.models.list()] == list(MODELS)
        assert client.models.retrieve("fake-clip").id == "fake-clip"
        with pytest.raises(openai.BadRequestError, match="input"):
            client.embeddings.create(model="fake-text", input=[])
        with pytest.raises(openai.NotFoundError) as raised:
            client.embeddings.create(model="nothing", input="a")
        assert raised.value.request_id
        with pytest.raises(openai.APIStatusError) as too_large:
            client.embeddings.create(model="fake-text", input="a" * (LIMIT + 1))
        assert too_large.value.status_code == 413


@pytest.mark.parametrize(
    ("mode", "kind", "status"),
    [
        ("full", openai.RateLimitError, 429),
        ("fail", openai.InternalServerError, 502),
        ("reset", openai.InternalServerError, 503),
        ("hang", openai.InternalServerError, 504),
    ],
)
def test_the_openai_client_sees_the_engines_failures(
    guarded: HttpWorker,
    set_mode: Callable[[str], None],
    mode: str,
    kind: type[openai.APIStatusError],
    status: int,
) -> None:
    set_mode(mode)
    with openai_client(guarded, KEYS[0]) as client, pytest.raises(kind) as raised:
        client.embeddings.create(model="fake-text", input=f"a text for {mode}")
    assert raised.value.status_code == status
    assert ("retry-after" in raised.value.response.headers) == (status in {429, 503})
    with openai_client(guarded, "wrong") as client, pytest.raises(openai.AuthenticationError):
        client.models.list()


def test_ping_follows_an_engine_that_is_not_the_workers_own(
    guarded: HttpWorker, set_mode: Callable[[str], None]
) -> None:
    set_mode("hang")
    headers = {"authorization": f"Bearer {KEYS[0]}"}
    httpx.post(f"{guarded.url}/embeddings", json=BODY, headers=headers)
    guarded.until_ping(503)
    set_mode("ok")
    guarded.until_ping(200)


def test_metrics_count_with_bounded_labels(server: HttpWorker) -> None:
    good = {"route": "/v1/embeddings", "model": "fake-text", "code": "200"}
    texts = {"model": "fake-text", "modality": "text"}
    before = metric(server, "requests_total", **good)
    items, batches = metric(server, "items_total", **texts), metric(server, "batch_items_count")
    tokens = metric(server, "tokens_total", model="fake-text")
    httpx.post(f"{server.url}/embeddings", json={"input": ["a b", "c"], "model": "fake-text"})
    for number in range(3):
        body = {"input": "a", "model": f"made-up-{number}"}
        httpx.post(f"{server.url}/made-up-{number}", json=body)
        httpx.post(f"{server.url}/embeddings", json=body)
    assert metric(server, "requests_total", **good) == before + 1
    assert metric(server, "items_total", **texts) == items + 2
    assert metric(server, "tokens_total", model="fake-text") == tokens + 3
    assert metric(server, "batch_items_count") > batches
    assert metric(server, "queue_wait_seconds_count") > 0
    assert metric(server, "engine_seconds_count") > 0
    assert metric(server, "request_seconds_count", route="/v1/embeddings") > before
    assert metric(server, "ready") == 1
    assert "made-up" not in httpx.get(f"{server.url}/metrics").text


@settings(max_examples=16, deadline=None, suppress_health_check=SLOW)
@given(bodies=st.lists(hostile_body(wrapped=False), min_size=AT_ONCE, max_size=AT_ONCE))
def test_320_hostile_bodies(server: HttpWorker, bodies: list[bytes]) -> None:
    with httpx.Client(base_url=server.url, timeout=BOUND_S) as client:

        def send(body: bytes) -> httpx.Response:
            return client.post("/v1/embeddings", content=body)

        with ThreadPoolExecutor(AT_ONCE) as threads:
            for reply in threads.map(send, bodies):
                assert reply.status_code == 200 or 400 <= error_of(reply)["code"] < 429
        assert client.post("/v1/embeddings", json=BODY).status_code == 200


def test_ping_through_the_life_of_the_engine_and_the_end_of_the_worker(tmp_path: Path) -> None:
    engine = f"http://127.0.0.1:{(port := free_port())}"
    variables = {
        "MODEL_NAMES": "m",
        "INFINITY_PORT": str(port),
        "PORT_HEALTH": str(free_port()),
        "ENGINE_BIN": str(write_engine_program(tmp_path)),
        # Each of its lives loads until it is told otherwise.
        "FAKE_ENGINE_MODE": "wait",
        "DRAIN_DELAY": "0",
    }

    def engine_waits() -> bool:
        try:
            return bool(httpx.get(f"{engine}/waiting").json())
        except httpx.TransportError:
            return False

    with running_http_worker(**variables) as worker, ThreadPoolExecutor(1) as thread:
        post = f"{worker.url}/v1/embeddings"
        until(engine_waits)
        assert worker.ping() == 204
        assert httpx.get(f"{worker.urls[1]}/ping").status_code == 204
        early = httpx.post(post, json=BODY)
        assert error_of(early)["type"] == "engine_unavailable"
        assert early.headers["retry-after"] == "5"
        assert httpx.get(f"{worker.url}/health").json()["state"] == "loading"

        httpx.post(f"{engine}/mode/mortal")
        worker.until_ping(200)
        assert httpx.get(f"{worker.urls[1]}/health").json()["models"] == list(MODELS)
        assert metric(worker, "engine_resident_bytes") > 1_000_000

        deadly = thread.submit(
            httpx.post, post, json={"input": "a text that ends the engine"}, timeout=BOUND_S
        )
        worker.until_ping(503)
        assert httpx.get(f"{worker.url}/health").json()["state"] == "down"
        until(engine_waits)
        httpx.post(f"{engine}/mode/ok")
        # What the engine had when it ended is answered all the same.
        assert deadly.result(BOUND_S).status_code == 200
        worker.until_ping(200)
        assert metric(worker, "engine_restarts_total") == 1

        httpx.post(f"{engine}/mode/wait")
        last = thread.submit(httpx.post, post, json=BODY, timeout=BOUND_S)
        until(engine_waits)
        worker.process.send_signal(signal.SIGTERM)
        worker.until_ping(503)
        assert error_of(httpx.post(post, json=BODY))["code"] == 503
        httpx.post(f"{engine}/mode/ok")
        reply = last.result(BOUND_S)
        assert reply.status_code == 200
        assert reply.headers["connection"] == "close"
        assert worker.process.wait(BOUND_S) == 0
        with pytest.raises(httpx.ConnectError):
            worker.ping()


def test_what_ends_the_engine_twice_is_a_500_that_clients_do_not_send_again(tmp_path: Path) -> None:
    variables = {
        "MODEL_NAMES": "m",
        "INFINITY_PORT": "0",
        "ENGINE_BIN": str(write_engine_program(tmp_path)),
        "FAKE_ENGINE_MODE": "mortal",
    }
    with running_http_worker(**variables) as worker:
        worker.until_ping(200)
        post = f"{worker.url}/v1/embeddings"
        deadly = httpx.post(post, json={"input": DEADLY}, timeout=BOUND_S)
        assert error_of(deadly)["code"] == 500
        assert deadly.headers["x-should-retry"] == "false"
        assert metric(worker, "engine_restarts_total") >= 1
        assert httpx.post(post, json=BODY, timeout=BOUND_S).status_code == 200


def test_requests_that_outlast_the_drain_get_a_503(engine_url: str) -> None:
    variables = {"INFINITY_URL": engine_url, "SHUTDOWN_TIMEOUT": "0.2", "DRAIN_DELAY": "0"}
    with running_http_worker(**variables) as worker, ThreadPoolExecutor(1) as thread:
        worker.until_ping(200)
        httpx.post(f"{engine_url}/mode/wait")
        try:
            url = f"{worker.url}/v1/embeddings"
            stuck = thread.submit(httpx.post, url, json=BODY, timeout=BOUND_S)
            until(lambda: bool(httpx.get(f"{engine_url}/waiting").json()))
            worker.process.send_signal(signal.SIGTERM)
            assert error_of(stuck.result(BOUND_S))["code"] == 503
        finally:
            httpx.post(f"{engine_url}/mode/ok")
        assert worker.process.wait(BOUND_S) == 0
        assert "Traceback" not in worker.read_log()


def test_a_port_that_is_taken_ends_the_worker_with_a_sentence(engine_url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with running_http_worker(INFINITY_URL=engine_url, PORT=port) as worker:
            assert worker.process.wait(BOUND_S) == 1
            assert f"port {port}" in worker.read_log()
            assert "Traceback" not in worker.read_log()
