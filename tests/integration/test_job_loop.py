"""The project's job loop between a platform that misbehaves and a fake engine."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from fakes.flaky_edge import FlakyEdge, serving
from infinity_worker.edge.workers import worker_environment
from processes import BOUND_S, TESTS, clean_environment, running, worker_command

LAST = {"COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT"}


@dataclass(frozen=True)
class Platform:
    edge: FlakyEdge
    api: str
    worker: subprocess.Popen[str]
    http: httpx.Client

    def run(self, text: str, **options: object) -> str:
        job_input = {"input": text, **options}
        job_id: str = self.post("run", {"input": job_input})["id"]
        return job_id

    def post(self, path: str, body: object = None) -> dict[str, Any]:
        answer: dict[str, Any] = self.http.post(f"{self.api}/{path}", json=body).json()
        return answer

    def status(self, job_id: str) -> dict[str, Any]:
        envelope: dict[str, Any] = self.http.get(f"{self.api}/status/{job_id}").json()
        return envelope

    def ended(self, job_id: str) -> dict[str, Any]:
        envelope = self.status(job_id)
        while envelope["status"] not in LAST:
            envelope = self.status(job_id)
        return envelope


@pytest.fixture
def engine() -> Iterator[str]:
    program = [sys.executable, str(TESTS / "fakes" / "fake_engine.py")]
    with running(program, clean_environment(), output=subprocess.PIPE) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()


@contextmanager
def platform(edge: FlakyEdge, engine: str, **settings: str) -> Iterator[Platform]:
    with serving(edge) as url:
        environment = clean_environment(
            **worker_environment(url, "local", "w0"), INFINITY_URL=engine, **settings
        )
        with (
            running(worker_command(), environment, output=subprocess.PIPE) as worker,
            httpx.Client(timeout=BOUND_S) as http,
        ):
            yield Platform(edge, f"{url}/v2/local", worker, http)


def test_no_result_is_lost_when_reporting_fails(engine: str) -> None:
    edge = FlakyEdge(job_done=["500", "429", "reset", "hang", "503", "swallow"])
    with platform(edge, engine, REPORT_TIMEOUT="1.5") as it:
        jobs = [it.run(f"text {number}") for number in range(8)]
        assert {it.ended(job)["status"] for job in jobs} == {"COMPLETED"}
    assert not edge.job_done
    assert dict(edge.reported) == dict.fromkeys(jobs, 1)


def test_jobs_are_taken_again_after_the_platform_failed(engine: str) -> None:
    edge = FlakyEdge(job_take=["500", "429", "reset"])
    with platform(edge, engine) as it:
        assert it.ended(it.run("a"))["status"] == "COMPLETED"
    assert not edge.job_take


def test_sigterm_under_load_loses_no_job_and_reports_each_once(engine: str) -> None:
    """What was taken is finished; what was not is still in the queue for another worker."""
    with platform(FlakyEdge(), engine, SHUTDOWN_TIMEOUT="20") as it:
        it.ended(it.run("the worker is up"))
        jobs = [it.run(f"text {number}") for number in range(200)]
        it.worker.send_signal(signal.SIGTERM)
        assert it.worker.wait(BOUND_S) == 0
        statuses = {job: it.status(job)["status"] for job in jobs}
        assert set(statuses.values()) <= {"COMPLETED", "IN_QUEUE"}
        done = [job for job, status in statuses.items() if status == "COMPLETED"]
        assert done
        assert all(it.edge.posted[job] == 1 for job in done)


def test_sigterm_lets_all_200_jobs_of_one_worker_finish(engine: str) -> None:
    """All of them are in flight, because the engine keeps them waiting."""
    with platform(FlakyEdge(), engine, RUNPOD_MAX_CONCURRENCY="200") as it:
        it.ended(it.run("the worker is up"))
        it.http.post(f"{engine}/mode/wait").raise_for_status()
        jobs = [it.run(f"text {number}") for number in range(200)]
        while it.http.get(f"{it.api}/health").json()["jobs"]["inProgress"] < 200:
            pass
        it.worker.send_signal(signal.SIGTERM)
        it.http.post(f"{engine}/mode/ok").raise_for_status()
        assert it.worker.wait(BOUND_S) == 0
        assert {it.status(job)["status"] for job in jobs} == {"COMPLETED"}
        assert dict(it.edge.posted) | dict.fromkeys(jobs, 1) == dict(it.edge.posted)


def test_a_job_that_the_open_poll_still_delivers_is_run(engine: str) -> None:
    with platform(FlakyEdge(), engine) as it:
        it.ended(it.run("the worker is up"))
        it.worker.send_signal(signal.SIGTERM)
        assert it.worker.stdout is not None
        while "told to end" not in it.worker.stdout.readline():
            pass
        assert it.ended(it.run("a late one"))["status"] == "COMPLETED"
        assert it.worker.wait(BOUND_S) == 0


def test_shutting_down_is_bounded(engine: str) -> None:
    with platform(FlakyEdge(), engine, SHUTDOWN_TIMEOUT="0.5") as it:
        it.ended(it.run("the worker is up"))
        it.http.post(f"{engine}/mode/wait").raise_for_status()
        job = it.run("a")
        while it.http.get(f"{engine}/waiting").json() < 1:
            pass
        it.worker.send_signal(signal.SIGTERM)
        assert it.worker.wait(BOUND_S) == 0
        assert it.edge.posted[job] == 0


def test_a_second_signal_ends_it_at_once(engine: str) -> None:
    with platform(FlakyEdge(), engine, SHUTDOWN_TIMEOUT="3600") as it:
        it.ended(it.run("the worker is up"))
        it.worker.send_signal(signal.SIGTERM)
        assert it.worker.stdout is not None
        while "told to end" not in it.worker.stdout.readline():
            pass
        it.worker.send_signal(signal.SIGTERM)
        assert it.worker.wait(BOUND_S) == 0


def test_a_stop_signal_drops_the_engine_call_and_posts_nothing(engine: str) -> None:
    with platform(FlakyEdge(), engine) as it:
        it.ended(it.run("the worker is up"))
        it.http.post(f"{engine}/mode/wait").raise_for_status()
        job = it.run("a")
        while it.http.get(f"{engine}/waiting").json() < 1:
            pass
        assert it.post(f"cancel/{job}")["status"] == "CANCELLED"
        while it.http.get(f"{engine}/waiting").json() > 0:
            pass
        it.http.post(f"{engine}/mode/ok").raise_for_status()
        assert it.ended(it.run("the next one"))["status"] == "COMPLETED"
        assert it.edge.posted[job] == 0


def test_a_result_over_the_limit_is_an_error_that_says_so(engine: str) -> None:
    with platform(FlakyEdge(), engine, RESULT_LIMIT_BYTES="2000") as it:
        job = it.post("runsync", {"input": {"input": ["a"] * 100}})
        error = json.loads(job["error"])
        assert (job["status"], error["code"]) == ("FAILED", 413)
        assert "with encoding_format base64" in error["message"]


def test_half_a_surrogate_pair_in_a_batch_harms_no_other_job(engine: str) -> None:
    with platform(FlakyEdge(), engine) as it:
        bodies = [b'{"input":{"input":"half \\ud83d"}}', b'{"input":{"input":"whole"}}'] * 5
        replies = [it.http.post(f"{it.api}/run", content=body).json() for body in bodies]
        ends = [it.ended(reply["id"])["status"] for reply in replies]
        assert ends == ["FAILED", "COMPLETED"] * 5


def test_the_log_has_one_line_a_job_and_never_an_input(engine: str) -> None:
    with platform(FlakyEdge(), engine) as it:
        assert it.worker.stdout is not None
        job = it.run("a secret of four", encoding_format="base64")
        line: dict[str, Any] = {}
        while line.get("job") != job:
            text = it.worker.stdout.readline()
            assert "secret" not in text
            line = json.loads(text) if text.startswith("{") else {}
        assert line.pop("engine_ms") > 0
        assert line.pop("total_ms") > 0
        assert line.pop("bytes_out") > 100
        assert line == {
            "level": "INFO",
            "message": "job",
            "job": job,
            "outcome": "ok",
            "code": 200,
            "route": "standard",
            "model": "fake-text",
            "texts": 1,
            "images": 0,
            "audio": 0,
            "failed": 0,
            "tokens": 4,
            "cached": 0,
            "encoding": "base64",
        }
