"""How the worker's process starts and ends. The engine program is the fake engine."""

import os
import signal
import subprocess
from pathlib import Path

import httpx
import psutil
import pytest

from infinity_worker.edge.server import EdgeServer
from infinity_worker.edge.workers import worker_environment
from processes import BOUND_S, clean_environment, running, worker_command, write_engine_program


def children_of(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


def environment(folder: Path, **extra: str) -> dict[str, str]:
    return clean_environment(
        MODEL_NAMES="m", INFINITY_PORT="0", ENGINE_BIN=str(write_engine_program(folder)), **extra
    )


def test_an_engine_that_dies_while_loading_ends_the_worker_with_its_last_lines(
    tmp_path: Path,
) -> None:
    words = "RepositoryNotFoundError: 404 Client Error"
    ended = subprocess.run(
        worker_command(),
        env=environment(tmp_path, FAKE_ENGINE_MODE="crash", FAKE_ENGINE_LAST_WORDS=words),
        capture_output=True,
        text=True,
        timeout=BOUND_S,
        check=False,
    )
    assert ended.returncode == 1
    assert words in ended.stderr
    assert "the model was not found: check MODEL_NAMES" in ended.stderr


def test_a_token_in_the_engines_last_words_is_not_repeated(tmp_path: Path) -> None:
    token = "hf_notarealtoken"  # noqa: S105  # made up
    ended = subprocess.run(
        worker_command(),
        env=environment(
            tmp_path,
            HF_TOKEN=token,
            FAKE_ENGINE_MODE="crash",
            FAKE_ENGINE_LAST_WORDS=f"401 Client Error: Bearer {token}",
        ),
        capture_output=True,
        text=True,
        timeout=BOUND_S,
        check=False,
    )
    assert "Bearer ***" in ended.stderr
    assert token not in ended.stderr + ended.stdout


@pytest.mark.parametrize(
    ("extra", "words", "status"),
    [
        ({"MODEL_NAMES": ""}, "MODEL_NAMES is not set", 1),
        ({"INFINITY_PORT": "seven"}, "INFINITY_PORT must be a number", 2),
        ({"ENGINE_BIN": "/nowhere/infinity_emb"}, "make setup", 1),
    ],
)
def test_a_wrong_setting_ends_the_worker_with_a_sentence(
    tmp_path: Path, extra: dict[str, str], words: str, status: int
) -> None:
    ended = subprocess.run(
        worker_command(),
        env=environment(tmp_path) | extra,
        capture_output=True,
        text=True,
        timeout=BOUND_S,
        check=False,
    )
    assert ended.returncode == status
    assert words in ended.stderr
    assert "Traceback" not in ended.stderr


def test_sigterm_while_loading_leaves_no_engine(tmp_path: Path) -> None:
    hanging = environment(tmp_path, FAKE_ENGINE_MODE="hang")
    with running(worker_command(), hanging, output=subprocess.PIPE) as worker:
        assert worker.stdout is not None
        # The engine's first line shows that it runs; it then never answers an embedding.
        while "http://127.0.0.1" not in worker.stdout.readline():
            assert worker.poll() is None
        engines = children_of(worker.pid)
        assert engines
        worker.send_signal(signal.SIGTERM)
        worker.wait(BOUND_S)
        assert psutil.wait_procs(engines, timeout=BOUND_S)[1] == []


def test_after_sigkill_neither_engine_nor_heartbeat_is_left(tmp_path: Path) -> None:
    with EdgeServer() as edge:
        variables = environment(tmp_path, **worker_environment(edge.url, "local", "w0"))
        with running(worker_command(), variables | {"FAKE_ENGINE_MODE": "parent"}) as worker:
            reply = httpx.post(
                f"{edge.url}/v2/local/runsync", json={"input": {"text": "a"}}, timeout=BOUND_S
            )
            assert reply.json()["status"] == "COMPLETED"
            processes = children_of(worker.pid)
            # The guard, the engine, the engine's own child, and the SDK's heartbeat.
            assert len(processes) >= 4
            os.kill(worker.pid, signal.SIGKILL)
            assert psutil.wait_procs(processes, timeout=BOUND_S)[1] == []


def test_it_starts_its_engine_answers_and_ends_it(tmp_path: Path) -> None:
    with EdgeServer() as edge:
        variables = environment(tmp_path, **worker_environment(edge.url, "local", "w0"))
        with running(worker_command(), variables) as worker:
            reply = httpx.post(
                f"{edge.url}/v2/local/runsync", json={"input": {"text": "a"}}, timeout=BOUND_S
            )
            assert reply.json()["status"] == "COMPLETED"
            processes = children_of(worker.pid)
            os.kill(worker.pid, signal.SIGTERM)
            edge.stop()  # ends the SDK's open polls, which it waits for
            assert worker.wait(BOUND_S) == 0
            assert psutil.wait_procs(processes, timeout=BOUND_S)[1] == []
