"""The examples of docs/clients.md, run as they stand with the real clients.

Each client runs in a process of its own whose way out is a proxy that lets nothing through and
notes who asked: no client may dial out. (Node and aiohttp heed no proxy: theirs is not seen.)
"""

import contextlib
import functools
import json
import re
import shutil
import socketserver
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from e2e.conftest import Stack
from infinity_worker.examples import picture
from processes import BOUND_S, ROOT, TESTS, clean_environment

DOCUMENT = (ROOT / "docs/clients.md").read_text()
DOCUMENTED_URL = "http://127.0.0.1:8000"
DOCUMENTED_BASE = f"{DOCUMENTED_URL}/v2/local/openai/v1"
DOCUMENTED_TEXTS = '["hello world", "guten Morgen"]'
EXAMPLE = re.compile(r"^## ([^\n]+)\n\n```(python|js)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
EXAMPLES = {name: (language, code) for name, language, code in EXAMPLE.findall(DOCUMENT)}
CLIENTS = TESTS / "clients"
NODE = CLIENTS / "node"
# Those that the worker's own environment has; the others have one of their own.
OURS = ("openai (Python)", "runpod.Endpoint", "runpod.AsyncioEndpoint")
# Those of the queue's own API, which a load-balancing endpoint does not have.
OF_QUEUES = ("runpod.Endpoint", "runpod.AsyncioEndpoint")
# Which texts share a pass through the model changes the order of its sums, and so the last bits.
TOLERANCE = 1e-5


@dataclass(frozen=True)
class Case:
    """What a client is to embed."""

    model: str
    texts: tuple[str, ...]

    def applied_to(self, code: str) -> str:
        """The documented code with this model and these texts."""
        assert DOCUMENTED_TEXTS in code
        code = code.replace(DOCUMENTED_TEXTS, json.dumps(self.texts, ensure_ascii=False))
        return re.sub(r"\bminilm\b", self.model, code)


ODD_TEXTS = ["", " ", "Ünïcödé 漢字 🔴 עברית", 'quotes " and \\ and {braces}', "word " * 400]
CASES = (
    # More than LlamaIndex and Haystack send at once.
    Case("minilm", (*ODD_TEXTS, *(f"text number {number}" for number in range(110)))),
    Case("shapes-clip", ("a red circle", picture(), "", "two blue squares")),
)
LANGCHAINS_CHUNK = 1_000
MORE_THAN_A_CHUNK = Case("minilm", tuple(map(str, range(LANGCHAINS_CHUNK + 5))))
WRONG = Case("no-such-model", ("a",))
# By client: behind a queue, and over HTTP.
WHAT_THEY_SAY = {
    name: (queue, http)
    for name, queue, http in re.findall(
        r"^\| ([^`|]+) \| `([^`]+)` \| (?:`([^`]+)`|–) \|$", DOCUMENT, re.MULTILINE
    )
}


@contextlib.contextmanager
def closed_proxy() -> Iterator[tuple[str, list[str]]]:
    """A proxy that notes what it is asked for and lets nothing through: its URL, the notes."""
    asked: list[str] = []

    class Refuse(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            asked.append(self.rfile.readline(1_000).decode(errors="replace").strip())

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Refuse) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
        server.shutdown()
        thread.join(BOUND_S)


def run(command: Sequence[str], script: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a client in a process of its own; it must not try to reach anything but loopback."""
    with closed_proxy() as (proxy, asked):
        environment = clean_environment(
            HTTP_PROXY=proxy,
            HTTPS_PROXY=proxy,
            NO_PROXY="127.0.0.1",
            HAYSTACK_TELEMETRY_ENABLED="False",
            LITELLM_LOCAL_MODEL_COST_MAP="True",
            **variables,
        )
        done = subprocess.run(
            command,
            input=script,
            env=environment,
            cwd=NODE,
            capture_output=True,
            text=True,
            timeout=2 * BOUND_S,
            check=False,
        )
    assert asked == []
    return done


def python_outcomes(name: str, scripts: Sequence[str]) -> list[dict[str, Any]]:
    environment = ROOT if name in OURS else CLIENTS
    python = environment / ".venv/bin/python"
    assert python.exists(), "run scripts/setup-clients.sh"
    done = run([str(python), str(CLIENTS / "run_example.py")], json.dumps(scripts))
    assert done.returncode == 0, done.stderr
    outcomes: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return outcomes


def node_outcome(script: str) -> dict[str, Any]:
    script += "\nconsole.log(JSON.stringify({ vectors }));"
    done = run(["node", "--input-type=module", "-"], script)
    if done.returncode == 0:
        outcome: dict[str, Any] = json.loads(done.stdout)
        return outcome
    return {"error": next(line for line in done.stderr.splitlines() if "Error: " in line)}


def outcomes_of(name: str, scripts: Sequence[str]) -> list[dict[str, Any]]:
    if EXAMPLES[name][0] == "python":
        return python_outcomes(name, scripts)
    if not (shutil.which("node") and (NODE / "node_modules/openai").exists()):
        pytest.skip("needs Node 20 with npm, and scripts/setup-clients.sh run once more")
    return [node_outcome(script) for script in scripts]


def scripts_of(name: str, stack: Stack, http_url: str) -> list[str]:
    """The documented code for each case, the wrong one last; behind a queue, then over HTTP."""
    codes = [case.applied_to(EXAMPLES[name][1]) for case in (*cases_for(name), WRONG)]
    queue = [code.replace(DOCUMENTED_URL, stack.url) for code in codes]
    if name in OF_QUEUES:
        return queue
    assert all(DOCUMENTED_BASE in code for code in codes)
    return queue + [code.replace(DOCUMENTED_BASE, f"{http_url}/v1") for code in codes]


@pytest.fixture(scope="module")
def plain(stack: Stack) -> Callable[[Case], NDArray[np.float32]]:
    """What a plain HTTP request brings; asked for once for each case."""

    @functools.cache
    def embed(case: Case) -> NDArray[np.float32]:
        reply = httpx.post(
            f"{stack.url}/v2/local/openai/v1/embeddings",
            json={"model": case.model, "input": case.texts},
            timeout=BOUND_S,
        )
        return np.array([entry["embedding"] for entry in reply.json()["data"]], np.float32)

    return embed


def cases_for(name: str) -> tuple[Case, ...]:
    return (*CASES, MORE_THAN_A_CHUNK) if name == "LangChain" else CASES


@pytest.fixture(scope="module")
def answers(stack: Stack, http_url: str) -> Iterator[Mapping[str, Future[list[dict[str, Any]]]]]:
    """Every client's outcomes for `scripts_of`. Importing the clients is most of the work."""
    with ThreadPoolExecutor(max_workers=2) as pool:
        yield {
            name: pool.submit(outcomes_of, name, scripts_of(name, stack, http_url))
            for name in EXAMPLES
        }
        pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_client_as_documented_behind_a_queue_and_over_http(
    answers: Mapping[str, Future[list[dict[str, Any]]]],
    plain: Callable[[Case], NDArray[np.float32]],
    name: str,
) -> None:
    outcomes = answers[name].result(timeout=3 * BOUND_S)
    cases = cases_for(name)
    said = [words for words in WHAT_THEY_SAY[name] if words]
    assert len(said) == (1 if name in OF_QUEUES else 2)
    for words in said:
        *right, failed = (outcomes.pop(0) for _ in (*cases, WRONG))
        for case, outcome in zip(cases, right, strict=True):
            assert list(outcome) == ["vectors"], outcome
            received = np.array(outcome["vectors"], np.float32)
            assert received.shape == plain(case).shape
            assert np.allclose(received, plain(case), rtol=0, atol=TOLERANCE)
        assert words in failed["error"]
    assert outcomes == []


@pytest.mark.parametrize(
    ("mode", "says"), [("queue", "No embedding data received"), ("http", "Error code: 400")]
)
def test_langchains_default_is_answered_with_the_setting_to_change(
    stack: Stack, http_url: str, mode: str, says: str
) -> None:
    python, script = CLIENTS / ".venv/bin/python", CLIENTS / "langchain_defaults.py"
    base = f"{stack.url}/v2/local/openai/v1" if mode == "queue" else f"{http_url}/v1"
    done = run([str(python), str(script), base], "")
    said = json.loads(done.stdout)
    (body,) = said["bodies"]
    assert body["error"]["code"] == 400
    assert "check_embedding_ctx_length=False" in body["error"]["message"]
    assert says in said["error"]


def test_every_client_has_its_section() -> None:
    assert len(EXAMPLES) == 8
    assert list(EXAMPLES) == list(WHAT_THEY_SAY)
