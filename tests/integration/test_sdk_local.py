"""The SDK's own ways to try a worker: one test job, and its development server."""

import ast
import re
import subprocess
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import orjson
import pytest

from fakes.fake_engine import embedding_of
from processes import BOUND_S, ROOT, clean_environment, running, worker_command

OPENAI_JOB = {"openai_route": "/v1/embeddings", "openai_input": {"input": ["a", "b"]}}


def run_test_job(engine: str, job_input: object, **variables: str) -> tuple[int, str]:
    """Run `--test_input`: the exit status and all that is printed."""
    done = subprocess.run(
        [*worker_command(), "--test_input", orjson.dumps({"input": job_input}).decode()],
        env=clean_environment(INFINITY_URL=engine, **variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=BOUND_S,
        cwd=ROOT,
        check=False,
    )
    return done.returncode, done.stdout


def embeddings(result: Any) -> list[list[float]]:
    return [entry["embedding"] for entry in result["data"]]


@pytest.mark.parametrize("job_loop", ["event", "stock"])
def test_a_test_job_is_run_and_its_result_is_printed(fake_engine: str, job_loop: str) -> None:
    status, printed = run_test_job(fake_engine, {"text": "hello"}, WORKER_JOB_LOOP=job_loop)
    assert status == 0, printed
    result = re.search(r"Job result: (.*)", printed)
    assert result, printed
    # The SDK prints it as Python does.
    (received,) = embeddings(ast.literal_eval(result[1])["output"])
    assert np.allclose(received, embedding_of("hello"))
    assert "Traceback" not in printed
    assert "Unclosed" not in printed


def test_a_test_job_that_fails_ends_in_status_1_and_says_why(fake_engine: str) -> None:
    status, printed = run_test_job(fake_engine, {"text": []})
    assert status == 1
    assert "text: the list is empty" in printed
    assert "Traceback" not in printed


def test_a_test_job_in_the_form_of_the_openai_route(fake_engine: str) -> None:
    status, printed = run_test_job(fake_engine, OPENAI_JOB)
    assert status == 0, printed
    assert "'output': [{'object': 'list'" in printed


@pytest.fixture(scope="module")
def server(fake_engine: str) -> Iterator[httpx.Client]:
    """The development server, on a port that the system chose."""
    arguments = ["--rp_serve_api", "--rp_api_host", "127.0.0.1", "--rp_api_port", "0"]
    environment = clean_environment(INFINITY_URL=fake_engine, PYTHONUNBUFFERED="1")
    with running([*worker_command(), *arguments], environment, output=subprocess.PIPE) as process:
        assert process.stdout is not None
        url = None
        while url is None:
            line = process.stdout.readline()
            assert line, "the development server did not come up"
            url = re.search(r"running on (http://\S+)", line)
        with httpx.Client(base_url=url[1], timeout=BOUND_S) as client:
            yield client


def test_the_development_server_runs_a_job(server: httpx.Client) -> None:
    job = server.post("/runsync", json={"input": {"input": ["a", "b"]}}).json()
    assert job["status"] == "COMPLETED"
    assert np.allclose(embeddings(job["output"]), [embedding_of("a"), embedding_of("b")])


def test_the_development_server_runs_a_job_when_its_status_is_asked_for(
    server: httpx.Client,
) -> None:
    job_id = server.post("/run", json={"input": {"text": "a"}}).json()["id"]
    job = server.post(f"/status/{job_id}").json()
    assert job["status"] == "COMPLETED"
    assert np.allclose(embeddings(job["output"]), [embedding_of("a")])


def test_the_development_server_takes_the_openai_routes_job(server: httpx.Client) -> None:
    (result,) = server.post("/runsync", json={"input": OPENAI_JOB}).json()["output"]
    assert np.allclose(embeddings(result), [embedding_of("a"), embedding_of("b")])


def test_the_development_server_shows_an_error_as_text(server: httpx.Client) -> None:
    job = server.post("/runsync", json={"input": {"text": []}}).json()
    assert job["status"] == "FAILED"
    assert orjson.loads(job["error"])["code"] == 400
