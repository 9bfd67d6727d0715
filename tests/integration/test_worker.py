"""The worker process on the real SDK, between the edge and a fake engine."""

import base64
import json
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np
import openai
import pytest
import runpod

from corpus import data_uri, encoded, picture
from fakes.fake_engine import MODELS, embedding_of
from infinity_worker.edge.server import EdgeServer
from infinity_worker.edge.workers import worker_environment
from processes import BOUND_S, TESTS, clean_environment, running, worker_command

IMAGE = data_uri(encoded(picture(), "PNG"))


@dataclass(frozen=True)
class Stack:
    edge_url: str
    engine_url: str = ""

    def runsync(self, job_input: object) -> dict[str, Any]:
        answer: dict[str, Any] = self.post("/v2/local/runsync", {"input": job_input}).json()
        return answer

    def embeddings(self, body: object) -> httpx.Response:
        return self.post("/v2/local/openai/v1/embeddings", body)

    def post(self, path: str, body: object) -> httpx.Response:
        # Escaped by hand: a client that sends half a surrogate pair does just that.
        content = json.dumps(body).encode("ascii")
        return httpx.post(f"{self.edge_url}{path}", content=content, timeout=BOUND_S)

    def engine_mode(self, mode: str) -> None:
        httpx.post(f"{self.engine_url}/mode/{mode}").raise_for_status()

    @property
    def openai(self) -> openai.OpenAI:
        return openai.OpenAI(
            base_url=f"{self.edge_url}/v2/local/openai/v1", api_key="local", max_retries=0
        )


@pytest.fixture(scope="module", params=["event", "stock"])
def stack(fake_engine: str, request: pytest.FixtureRequest) -> Iterator[Stack]:
    with EdgeServer() as edge:
        environment = clean_environment(
            **worker_environment(edge.url, "local", "w0"),
            INFINITY_URL=fake_engine,
            ENGINE_TIMEOUT="2",
            JOB_TIMEOUT="5",
            MAX_ITEMS="100",
            WORKER_JOB_LOOP=request.param,
        )
        with running(worker_command(), environment):
            yield Stack(edge.url, fake_engine)


@pytest.fixture
def engine_mode(stack: Stack) -> Iterator[Any]:
    yield stack.engine_mode
    stack.engine_mode("ok")


def vectors(result: Any) -> list[list[float]]:
    return [entry["embedding"] for entry in result["data"]]


def test_the_openai_client_embeds_with_its_defaults(stack: Stack) -> None:
    """It asks for base64 and decodes that."""
    reply = stack.openai.embeddings.create(model="fake-text", input=["one", "two words"])
    assert [item.embedding for item in reply.data] == [
        embedding_of("one").tolist(),
        embedding_of("two words").tolist(),
    ]
    assert reply.usage.prompt_tokens == 3


def test_the_openai_client_lists_models(stack: Stack) -> None:
    assert [model.id for model in stack.openai.models.list()] == list(MODELS)


@pytest.mark.parametrize("prefix", ["/v2/local/openai/v1", "/v2/local/openai", "/v1"])
def test_the_route_is_served_under(stack: Stack, prefix: str) -> None:
    assert len(vectors(stack.post(f"{prefix}/embeddings", {"input": "a"}).json())) == 1


def test_floats_arrive_exactly(stack: Stack) -> None:
    body = {"input": "a", "encoding_format": "float"}
    received = vectors(stack.embeddings(body).json())[0]
    assert np.array(received, np.float32).tobytes() == embedding_of("a").tobytes()


def test_base64_arrives_exactly(stack: Stack) -> None:
    (encoded,) = vectors(stack.embeddings({"input": "a", "encoding_format": "base64"}).json())
    assert base64.b64decode(str(encoded)) == embedding_of("a").tobytes()


def test_runpods_own_client(stack: Stack) -> None:
    endpoint = runpod.Endpoint("local", api_key="local")
    endpoint.rp_client.endpoint_url_base = f"{stack.edge_url}/v2"
    result = endpoint.run_sync({"input": {"input": ["a", IMAGE], "model": "fake-clip"}})
    assert np.allclose(vectors(result), [embedding_of("a"), embedding_of(IMAGE)])
    assert result["usage"] == {"prompt_tokens": 1, "total_tokens": 1, "images": 1}


# Every row of the error table: how the engine behaves, the input, the code, the type.
ROWS: list[tuple[str, dict[str, Any], int, str]] = [
    ("ok", {"input": []}, 400, "invalid_request_error"),
    ("ok", {"input": "half \ud83d"}, 400, "invalid_request_error"),
    ("refuse", {"input": "a"}, 400, "invalid_request_error"),
    ("ok", {"input": "a", "model": "gpt"}, 404, "model_not_found"),
    ("ok", {"input": ["a"] * 101}, 413, "request_too_large"),
    ("full", {"input": "a"}, 429, "rate_limit_error"),
    ("fail", {"input": "a"}, 502, "engine_error"),
    ("nan", {"input": "a"}, 502, "engine_error"),
    ("reset", {"input": "a"}, 503, "engine_unavailable"),
    ("hang", {"input": "a"}, 504, "engine_timeout"),
]


@pytest.mark.parametrize(("mode", "body", "code", "kind"), ROWS)
def test_an_error_is_delivered_as_the_contract_says(
    stack: Stack, engine_mode: Any, mode: str, body: dict[str, Any], code: int, kind: str
) -> None:
    engine_mode(mode)
    with ThreadPoolExecutor() as side_by_side:
        completing = side_by_side.submit(stack.embeddings, body)
        job = stack.runsync(body)
        reply = completing.result()
    assert job["status"] == "FAILED"
    assert "output" not in job
    error = json.loads(job["error"])
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["code"], error["type"]) == (code, kind)

    ours = code == 429 or code >= 500
    assert reply.status_code == (500 if ours else 200)
    assert reply.json() == {"error": error}


def test_an_unknown_route(stack: Stack) -> None:
    reply = stack.post("/v2/local/openai/v1/audio/speech", {"input": "a"})
    assert reply.status_code == 200
    assert reply.json()["error"]["code"] == 404
    assert reply.json()["error"]["type"] == "not_found_error"


def test_the_unforeseen_is_a_bland_internal_error() -> None:
    with EdgeServer() as edge:
        environment = clean_environment(**worker_environment(edge.url, "local", "w0"))
        with running([sys.executable, str(TESTS / "fakes" / "broken_worker.py")], environment):
            stack = Stack(edge.url)
            error = json.loads(stack.runsync({"input": "a"})["error"])
            assert (error["code"], error["type"]) == (500, "internal_error")
            assert "secret" not in error["message"]
            assert stack.embeddings({"input": "a"}).status_code == 500


def test_many_jobs_at_a_time_each_get_their_own_answer(stack: Stack) -> None:
    texts = [f"text number {number}" for number in range(40)]
    jobs = [stack.post("/v2/local/run", {"input": {"input": text}}).json()["id"] for text in texts]
    for text, job_id in zip(texts, jobs, strict=True):
        job: dict[str, Any] = {"status": "IN_QUEUE"}
        while job["status"] in {"IN_QUEUE", "IN_PROGRESS"}:
            job = httpx.get(f"{stack.edge_url}/v2/local/status/{job_id}").json()
        assert np.allclose(vectors(job["output"]), [embedding_of(text)])
