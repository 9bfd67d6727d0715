"""A worker as an HTTP server in a process of its own, for tests."""

import re
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from processes import BOUND_S, clean_environment, running, worker_command

LISTENING = re.compile(r"listening on (http://\S+)")


@dataclass(frozen=True)
class HttpWorker:
    """One that runs.

    Attributes:
        urls: where it listens.
        process: itself.
        read_log: what it has printed so far.
    """

    urls: list[str]
    process: subprocess.Popen[str]
    read_log: Callable[[], str]

    @property
    def url(self) -> str:
        """Where it answers."""
        return self.urls[0]

    def ping(self) -> int:
        """The status of `/ping`."""
        return httpx.get(f"{self.url}/ping", timeout=BOUND_S).status_code

    def until_ping(self, status: int) -> None:
        """Wait until `/ping` answers with this."""
        until(lambda: self.ping() == status)


def until(condition: Callable[[], bool]) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + BOUND_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running_http_worker(**variables: str) -> Iterator[HttpWorker]:
    """Start one; it listens, and may still be loading."""
    environment = clean_environment(WORKER_MODE="http", PORT="0") | variables
    with (
        tempfile.NamedTemporaryFile("a") as log,
        running(worker_command(), environment, output=log) as process,
    ):

        def read_log() -> str:
            # Opened anew: a position that both sides share would be moved under the worker's pen.
            return Path(log.name).read_text(encoding="utf-8")

        ports = 2 if "PORT_HEALTH" in variables else 1
        until(lambda: len(LISTENING.findall(read_log())) == ports or process.poll() is not None)
        yield HttpWorker(LISTENING.findall(read_log()), process, read_log)
