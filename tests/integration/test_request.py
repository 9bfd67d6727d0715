"""`infinity-worker request` against servers that answer as they like."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from processes import BOUND_S, clean_environment

PROGRAM = str(Path(sys.executable).parent / "infinity-worker")


class Scripted(HTTPServer):
    """Answers every request with the same body, and keeps the headers of the last."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.body: Any = {}
        self.last_headers: dict[str, str] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Scripted

    def do_POST(self) -> None:  # the name is the standard library's
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.last_headers = dict(self.headers)
        content = json.dumps(self.server.body).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # likewise
        """Print nothing."""


@pytest.fixture
def server() -> Iterator[Scripted]:
    with Scripted() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join(BOUND_S)


def request(
    server: Scripted, *arguments: str, **variables: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PROGRAM, "request", "--url", server.url, "--model", "m", *arguments],
        env=clean_environment(**variables),
        capture_output=True,
        text=True,
        timeout=BOUND_S,
        check=False,
    )


def reply(*vectors: list[float]) -> dict[str, Any]:
    entries = [{"index": at, "embedding": vector} for at, vector in enumerate(vectors)]
    return {"object": "list", "model": "m", "data": entries}


@pytest.mark.parametrize(
    ("arguments", "variables", "sent"),
    [
        (["--api-key", "one"], {"RUNPOD_API_KEY": "two"}, "Bearer one"),
        ([], {"RUNPOD_API_KEY": "two"}, "Bearer two"),
        ([], {}, None),
    ],
)
def test_the_key(
    server: Scripted, arguments: list[str], variables: dict[str, str], sent: str | None
) -> None:
    server.body = reply([1.0, 0.0])
    done = request(server, "a", *arguments, **variables)
    assert done.returncode == 0, done.stderr
    assert server.last_headers.get("Authorization") == sent


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (reply([1.0]), "not one embedding"),
        (reply([1.0], [1.0, 2.0]), "not one embedding"),
        ({"data": "none"}, "not what OpenAI's API says"),
    ],
)
def test_nonsense_is_recognised(server: Scripted, body: Any, words: str) -> None:
    server.body = body
    done = request(server, "a", "b")
    assert done.returncode == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr
