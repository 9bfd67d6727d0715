"""`infinity-worker doctor` as a process, on machines where things are wrong."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

import pytest

from infinity_worker.edge.server import EdgeServer
from processes import BOUND_S, ROOT, clean_environment, write_engine_program

PROGRAM = str(Path(sys.executable).parent / "infinity-worker")
SECRETS = {
    "RUNPOD_API_KEY": "secret-one",
    "INFINITY_API_KEY": "secret-two",
    "HF_TOKEN": "secret-three",
}


def doctor(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [PROGRAM, "doctor", *arguments],
        env=clean_environment(ENGINE_DEVICE="cpu", **SECRETS) | variables,
        capture_output=True,
        text=True,
        timeout=2 * BOUND_S,
        check=False,
    )
    assert "secret-" not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


def findings(*arguments: str, **variables: str) -> dict[str, tuple[str, str]]:
    """By check: the status, and the message with the advice."""
    done = doctor("--json", "--port", "0", *arguments, **variables)
    report: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == (1 if report["problems"] else 0)
    return {
        one["check"]: (one["status"], f"{one['message']} {one['advice']}")
        for one in report["findings"]
    }


@pytest.fixture
def healthy(tmp_path: Path) -> dict[str, str]:
    """Variables with which nothing is wrong: the engine is the fake one, its model a folder."""
    return {
        "ENGINE_BIN": str(write_engine_program(tmp_path)),
        "INFINITY_PORT": "0",
        "MODEL_NAMES": str(tmp_path),
        "SERVED_MODEL_NAMES": "m",
    }


@pytest.fixture
def stranger() -> Iterator[int]:
    """The port of a program that is none of ours."""
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join(BOUND_S)


def test_where_nothing_is_wrong_the_exit_status_is_0(healthy: dict[str, str]) -> None:
    done = doctor("--port", "0", **healthy)
    assert done.returncode == 0, done.stdout
    assert "ok       worker environment: matches its lock" in done.stdout
    assert "ok       engine program: starts" in done.stdout
    assert done.stdout.endswith("\nno problems found\n")


def test_settings_that_cannot_be_read_are_one_finding_among_others() -> None:
    found = findings("--quick", INFINITY_PORT="seven")
    status, words = found["settings"]
    assert status == "problem"
    assert "INFINITY_PORT must be a number" in words
    assert {"Python", "worker environment", "engine program", "memory", "disk"} <= found.keys()


@pytest.mark.parametrize(
    ("script", "status", "words"),
    [
        ("echo 'ImportError: no such library' >&2; exit 1", "problem", "ImportError: no such"),
        ("exit 3", "problem", "exit status 3"),
        ("exit 0", "ok", "starts"),
    ],
)
def test_the_engines_program_is_started(
    healthy: dict[str, str], script: str, status: str, words: str
) -> None:
    Path(healthy["ENGINE_BIN"]).write_text(f"#!/bin/sh\n{script}\n")
    found = findings(**healthy)["engine program"]
    assert found[0] == status
    assert words in found[1]


def test_looking_at_the_engines_environment_makes_none(tmp_path: Path) -> None:
    for name in ("scripts/setup-engine.sh", "engine/uv.lock"):
        copy = tmp_path / name
        copy.parent.mkdir()
        shutil.copy(ROOT / name, copy)
    before = sorted(tmp_path.rglob("*"))
    script = str(tmp_path / "scripts/setup-engine.sh")
    assert subprocess.run([script, "--check"], timeout=BOUND_S, check=False).returncode == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_a_missing_engine_and_a_missing_model(healthy: dict[str, str], tmp_path: Path) -> None:
    lacking = {
        "ENGINE_BIN": str(tmp_path / "nowhere/infinity_emb"),
        "MODEL_NAMES": f"{tmp_path}/nothing;org/model",
        "SERVED_MODEL_NAMES": "here;there",
        "HF_HUB_CACHE": str(tmp_path),
        "HF_HUB_OFFLINE": "1",
    }
    found = findings(**healthy | lacking)
    for check in ("engine program", "model here", "model there"):
        assert found[check][0] == "problem", found


def test_a_model_in_the_hubs_cache(healthy: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "models--org--model/snapshots/abc").mkdir(parents=True)
    cached = {"MODEL_NAMES": "org/model", "HF_HUB_CACHE": str(tmp_path)}
    assert findings("--quick", **healthy | cached)["model m"][0] == "ok"


def test_ports_in_use_and_by_whom(healthy: dict[str, str], fake_engine: str, stranger: int) -> None:
    engine_port = urlsplit(fake_engine).port
    taken = healthy | {"INFINITY_PORT": str(engine_port)}
    with EdgeServer() as edge:
        # The last --port counts.
        ours = findings("--quick", "--port", str(urlsplit(edge.url).port), **taken)
    assert [one for one in ours.values() if "make serve" in one[1]] == [
        ("note", "is in use, it seems by an Infinity server: `make serve` seems to run "),
        ("note", "is in use, it seems by a local edge: `make serve` seems to run "),
    ]
    others = findings("--quick", "--port", str(stranger), **taken)
    status, words = others[f"port {stranger} (local edge)"]
    assert (status, "another program" in words) == ("problem", True)
    status, words = others[f"port {engine_port} (engine)"]
    assert (status, f"INFINITY_URL={fake_engine}" in words) == ("problem", True)


def test_a_server_of_ones_own(fake_engine: str, stranger: int) -> None:
    assert findings(INFINITY_URL=fake_engine)["INFINITY_URL"][0] == "ok"
    found = findings(INFINITY_URL=f"http://127.0.0.1:{stranger}")
    assert found["INFINITY_URL"][0] == "problem"
    # The engine's environment does not matter then.
    assert "engine environment" not in found


def test_an_environment_that_was_set_up_matches_its_lock() -> None:
    script = str(ROOT / "scripts" / "setup-engine.sh")
    done = subprocess.run([script, "--check"], timeout=BOUND_S, check=False)
    assert done.returncode == 0
