"""The worker with an engine of its own that crashes and hangs: no job is lost, none is wrong."""

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest

from fakes.fake_engine import DEADLY, STALLING, embedding_of
from infinity_worker.edge.server import EdgeServer
from infinity_worker.edge.workers import worker_environment
from processes import BOUND_S, clean_environment, running, worker_command, write_engine_program


@dataclass(frozen=True)
class Stack:
    """A worker between the edge and an engine of its own."""

    edge: EdgeServer
    worker: subprocess.Popen[str]

    def ended(self) -> str:
        """Wait until the worker has ended; what it printed."""
        self.edge.stop()  # ends the open polls, which both loops wait for
        output, _ = self.worker.communicate(timeout=BOUND_S)
        return output

    def answers(self, jobs: Sequence[Sequence[str]]) -> list[dict[str, Any]]:
        """Send jobs side by side and wait for their envelopes."""
        with ThreadPoolExecutor(len(jobs)) as threads:
            return list(threads.map(self.answer, jobs))

    def answer(self, texts: Sequence[str]) -> dict[str, Any]:
        envelope: dict[str, Any] = httpx.post(
            f"{self.edge.url}/v2/local/runsync",
            json={"input": {"text": list(texts), "model": "fake-text"}},
            timeout=BOUND_S,
        ).json()
        return envelope

    def engine(self) -> psutil.Process:
        """The engine's process, below its guard."""
        for process in psutil.Process(self.worker.pid).children(recursive=True):
            if "fake_engine.py" in " ".join(process.cmdline()[:2]):
                return process
        raise AssertionError("there is no engine")


@contextmanager
def stack(folder: Path, **variables: str) -> Iterator[Stack]:
    with EdgeServer() as edge:
        environment = clean_environment(
            **worker_environment(edge.url, "local", "w0"),
            MODEL_NAMES="m",
            INFINITY_PORT="0",
            ENGINE_BIN=str(write_engine_program(folder)),
            FAKE_ENGINE_MODE="mortal",
            ENGINE_TIMEOUT="2",
        )
        command = worker_command()
        with running(command, environment | variables, output=subprocess.PIPE) as worker:
            yield Stack(edge, worker)


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("engine")
    with stack(folder, ENGINE_MAX_RESTARTS="1000") as it, ThreadPoolExecutor(1) as drain:
        assert it.worker.stdout is not None
        # A pipe that is full would stop the worker.
        drain.submit(it.worker.stdout.read)
        yield it
        it.worker.kill()


def is_right(envelope: dict[str, Any], texts: Sequence[str]) -> bool:
    vectors = [entry["embedding"] for entry in envelope["output"]["data"]]
    return envelope["status"] == "COMPLETED" and bool(
        np.allclose(vectors, [embedding_of(text) for text in texts])
    )


@pytest.mark.parametrize("text", [DEADLY, STALLING])
def test_only_the_job_that_the_engine_cannot_survive_fails(lasting: Stack, text: str) -> None:
    jobs = [[f"job {number}", "another text"] for number in range(12)]
    jobs[5] = ["one", text, "three"]
    envelopes = lasting.answers(jobs)
    failed = envelopes.pop(5)
    error = json.loads(failed["error"])
    assert (error["code"], error["type"]) == (500, "internal_error")
    assert "3 items" in error["message"]
    assert text not in error["message"]
    assert all(map(is_right, envelopes, jobs[:5] + jobs[6:]))


def test_the_sdks_own_loop_has_its_engine_watched_too(tmp_path: Path) -> None:
    with stack(tmp_path, WORKER_JOB_LOOP="stock", ENGINE_MAX_RESTARTS="2") as it:
        assert json.loads(it.answer([DEADLY])["error"])["code"] == 500
        assert is_right(it.answer(["a"]), ["a"])
        it.engine().kill()
        output = it.ended()
    assert it.worker.returncode == 1
    assert "was started again 2 times within 600 s" in output


def test_an_engine_that_is_killed_while_idle_is_started_again(lasting: Stack) -> None:
    lasting.answer(["it is up"])
    engine = lasting.engine()
    engine.kill()
    assert is_right(lasting.answer(["a"]), ["a"])
    assert lasting.engine().pid != engine.pid


def test_an_engine_that_stops_is_killed_and_its_jobs_are_answered(lasting: Stack) -> None:
    lasting.answer(["it is up"])
    engine = lasting.engine()
    engine.suspend()
    jobs = [[f"job {number}"] for number in range(12)]
    assert all(map(is_right, lasting.answers(jobs), jobs))
    assert psutil.wait_procs([engine], timeout=BOUND_S)[1] == []


@pytest.mark.parametrize(("restarts", "code"), [("0", 503), ("1", 500)])
def test_an_engine_that_keeps_ending_ends_the_worker(
    tmp_path: Path, restarts: str, code: int
) -> None:
    """What it holds is reported: as lost with the engine, or as what ended it twice."""
    with stack(tmp_path, ENGINE_MAX_RESTARTS=restarts) as it:
        failed = it.answer(["one", DEADLY])
        output = it.ended()
    assert it.worker.returncode == 1
    assert json.loads(failed["error"])["code"] == code
    assert f"was started again {restarts} times within 600 s" in output
    assert "Traceback" not in output


def test_an_engine_that_takes_too_much_memory_is_ended(tmp_path: Path) -> None:
    with stack(tmp_path, ENGINE_MEMORY_MB="1", ENGINE_MAX_RESTARTS="0") as it:
        assert is_right(it.answer(["a"]), ["a"])
        output = it.ended()
    assert it.worker.returncode == 1
    assert "more than ENGINE_MEMORY_MB=1" in output


@pytest.mark.parametrize(
    ("mode", "told"),
    [
        ("crash", "the model was not found: check MODEL_NAMES"),
        ("fail", "the engine runs, but a model does not answer"),
    ],
)
def test_an_engine_that_does_not_embed_makes_the_worker_unfit(
    tmp_path: Path, mode: str, told: str
) -> None:
    """The SDK ends the process in a way that runs nothing more of it; the engine ends with it."""
    model = str(tmp_path / "a model of this test's own")
    variables = {
        "MODEL_NAMES": model,
        "SERVED_MODEL_NAMES": "m",
        "FAKE_ENGINE_MODE": mode,
        "FAKE_ENGINE_LAST_WORDS": "RepositoryNotFoundError: 404 Client Error",
    }
    with stack(tmp_path, **variables) as it:
        output, _ = it.worker.communicate(timeout=BOUND_S)
    assert it.worker.returncode == 1
    assert "Fitness check failed: engine_is_loaded_and_embeds" in output
    assert told in output
    assert str(tmp_path) not in output
    left = [
        each for each in psutil.process_iter(["cmdline"]) if model in (each.info["cmdline"] or [])
    ]
    assert psutil.wait_procs(left, timeout=BOUND_S)[1] == []


def test_the_log_tells_when_each_phase_of_the_start_was_over(tmp_path: Path) -> None:
    with stack(tmp_path) as it:
        it.answer(["it is up"])
        os.kill(it.worker.pid, signal.SIGTERM)
        output = it.ended()
    (line,) = [json.loads(line) for line in output.splitlines() if '"cold start"' in line]
    phases = [name for name in line if name.endswith("_s")]
    assert phases == [
        f"{phase}_s"
        for phase in (
            *("settings", "engine_started", "sdk_imported", "tokenizers_loaded"),
            *("listening", "embedding", "taking"),
        )
    ]
    moments = [line[phase] for phase in phases]
    assert moments == sorted(moments)
    assert re.search(r"engine: http://127\.0\.0\.1:\d+", output)
