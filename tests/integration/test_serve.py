"""`infinity-worker serve` with real workers on the real SDK; the engine is the fake one."""

import asyncio
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import psutil
import pytest

from fakes.fake_engine import embedding_of
from infinity_worker import cli
from processes import BOUND_S, TESTS, clean_environment, running, write_engine_program

PROGRAM = str(Path(sys.executable).parent / "infinity-worker")
KEY = "a key for tests"
HEADERS = {"Authorization": KEY}
CALLS = 500


@dataclass(frozen=True)
class Served:
    """A running `serve`, and the fake engine behind it."""

    url: str
    engine: str
    process: subprocess.Popen[str]

    def health(self) -> Any:
        url = f"{self.url}/v2/local/health"
        return httpx.get(url, headers=HEADERS, timeout=BOUND_S).json()

    def set_engine(self, mode: str) -> None:
        httpx.post(f"{self.engine}/mode/{mode}", timeout=BOUND_S).raise_for_status()

    def workers(self) -> list[psutil.Process]:
        children = psutil.Process(self.process.pid).children()
        return [child for child in children if "infinity_worker" in child.cmdline()]


@pytest.fixture
def engine() -> Iterator[str]:
    program = [sys.executable, str(TESTS / "fakes" / "fake_engine.py")]
    with running(program, clean_environment(), output=subprocess.PIPE) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()


@pytest.fixture
def served(engine: str) -> Iterator[Served]:
    environment = clean_environment(INFINITY_URL=engine, EDGE_API_KEY=KEY, PYTHONUNBUFFERED="1")
    command = [PROGRAM, "serve", "--port", "0", "--workers", "3"]
    with running(command, environment, output=subprocess.PIPE) as process:
        yield Served(until_ready(process), engine, process)
        workers = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
        assert process.wait(BOUND_S) == 130
        assert psutil.wait_procs(workers, timeout=BOUND_S)[1] == []


def until_ready(process: subprocess.Popen[str]) -> str:
    """Read the banner; the rest of the output is read away."""
    assert process.stdout is not None
    printed = ""
    for line in process.stdout:
        printed += line
        if line.startswith("Ctrl-C"):
            break
    match = re.search(r"^RunPod API: (http://\S+)/v2/local$", printed, re.MULTILINE)
    assert match, printed
    assert KEY not in printed
    threading.Thread(target=process.stdout.read, daemon=True).start()
    return match[1]


async def call(session: aiohttp.ClientSession, number: int) -> dict[str, Any]:
    body = {"input": {"text": f"text {number}"}}
    async with session.post("runsync?wait=300000", json=body) as reply:
        envelope: dict[str, Any] = await reply.json()
        return envelope


async def call_all(served: Served) -> list[dict[str, Any]]:
    """Make all calls at once, and kill a worker while jobs are in the hands of each."""
    timeout = aiohttp.ClientTimeout(total=BOUND_S)
    async with aiohttp.ClientSession(
        f"{served.url}/v2/local/",
        headers=HEADERS,
        timeout=timeout,
        connector=aiohttp.TCPConnector(limit=0),
    ) as session:
        calls = asyncio.gather(*(call(session, number) for number in range(CALLS)))
        async with asyncio.timeout(BOUND_S):
            health: Any = None
            while health is None or health["jobs"]["inProgress"] < 150:
                health = await asyncio.to_thread(served.health)
        assert (health["jobs"]["inQueue"], health["workers"]["running"]) == (CALLS - 150, 3)
        served.workers()[1].kill()
        await asyncio.to_thread(served.set_engine, "ok")
        return await calls


def test_500_calls_over_3_workers_one_of_which_is_killed_are_each_answered_once(
    served: Served,
) -> None:
    served.set_engine("wait")
    done_before = served.health()["jobs"]["completed"]
    envelopes = asyncio.run(call_all(served))
    assert {envelope["status"] for envelope in envelopes} == {"COMPLETED"}
    assert len({envelope["id"] for envelope in envelopes}) == CALLS
    for number, envelope in enumerate(envelopes):
        embedding = envelope["output"]["data"][0]["embedding"]
        assert embedding == pytest.approx(embedding_of(f"text {number}").tolist(), abs=1e-7)
    jobs = served.health()["jobs"]
    assert jobs == {
        "completed": done_before + CALLS,
        "failed": 0,
        "inProgress": 0,
        "inQueue": 0,
        # Just those that the killed worker had.
        "retried": 50,
    }
    while len(served.workers()) < 3:
        assert served.process.poll() is None


REFUSED = [
    (["--host", "0.0.0.0"], {}, "set EDGE_API_KEY"),  # noqa: S104  # refused
    (["--engines", "per-worker"], {"INFINITY_URL": "http://127.0.0.1:9"}, "unset INFINITY_URL"),
]


@pytest.mark.parametrize(("options", "variables", "words"), REFUSED)
def test_what_cannot_be_served_is_refused_with_a_sentence(
    options: list[str], variables: dict[str, str], words: str
) -> None:
    ended = subprocess.run(
        [PROGRAM, "serve", "--port", "0", *options],
        env=clean_environment(**variables),
        capture_output=True,
        text=True,
        timeout=BOUND_S,
        check=False,
    )
    assert (ended.returncode, "Traceback" in ended.stderr) == (1, False)
    assert words in ended.stderr


BAD_OPTIONS = [
    ("--workers", "0", "between 1 and 100"),
    ("--workers", "two", "invalid"),
    ("--scale-to-zero", "0", "above 0"),
    ("--scale-to-zero", "nan", "above 0"),
    ("--openai-errors", "maybe", "platform"),
]


@pytest.mark.parametrize(("option", "value", "words"), BAD_OPTIONS)
def test_an_option_that_cannot_be_used_is_refused(
    option: str, value: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.main(["serve", option, value])
    assert words in capsys.readouterr().err


def test_each_worker_can_own_an_engine_and_a_killed_one_leaves_none_behind(tmp_path: Path) -> None:
    environment = clean_environment(
        MODEL_NAMES="m", ENGINE_BIN=str(write_engine_program(tmp_path)), PYTHONUNBUFFERED="1"
    )
    command = [PROGRAM, "serve", "--port", "0", "--engines", "per-worker"]
    with running(command, environment, output=subprocess.PIPE) as process:
        url = until_ready(process)
        told = httpx.post(
            f"{url}/v2/local/runsync", json={"input": {"text": "a"}}, timeout=BOUND_S
        ).json()
        assert told["status"] == "COMPLETED"
        worker = psutil.Process(process.pid).children()[0]
        family = worker.children(recursive=True)
        assert any("fake_engine.py" in " ".join(each.cmdline()) for each in family)
        worker.kill()
        assert psutil.wait_procs(family, timeout=BOUND_S)[1] == []
        process.send_signal(signal.SIGTERM)
        assert process.wait(BOUND_S) == 0
