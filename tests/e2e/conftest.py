"""The whole stack, as `make serve` starts it: the real engine with all demo models, once."""

import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from infinity_worker.demo.models import demo_settings
from processes import BOUND_S, clean_environment, running


@dataclass(frozen=True)
class Stack:
    """The running stack.

    Attributes:
        url: where its edge listens.
        engine_url: where its engine listens.
        banner: what it printed, once it was ready.
    """

    url: str
    engine_url: str
    banner: str

    @property
    def openai(self) -> openai.OpenAI:
        """The official client with its default settings."""
        return openai.OpenAI(base_url=f"{self.url}/v2/local/openai/v1", api_key="local")

    def runsync(self, job_input: object) -> dict[str, Any]:
        """Send one job and wait for its envelope."""
        reply = httpx.post(
            f"{self.url}/v2/local/runsync", json={"input": job_input}, timeout=BOUND_S
        )
        envelope: dict[str, Any] = reply.json()
        return envelope


def free_port() -> int:
    """A port that the system says is free, so that tests know where the engine listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def serving(environment: Mapping[str, str], *options: str) -> Iterator[str]:
    """Run `infinity-worker serve`; what it printed, once it was ready."""
    program = str(Path(sys.executable).parent / "infinity-worker")
    command = [program, "serve", "--port", "0", *options]
    with running(command, environment, output=subprocess.PIPE) as process:
        assert process.stdout is not None
        lines: list[str] = []
        for line in process.stdout:
            lines.append(line)
            if line.startswith("Ctrl-C"):
                break
        drain = threading.Thread(target=process.stdout.read, daemon=True)
        drain.start()
        yield "".join(lines)
        process.send_signal(signal.SIGINT)
        process.wait(BOUND_S)
        drain.join(BOUND_S)


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    engine_port = free_port()
    environment = clean_environment(
        INFINITY_PORT=str(engine_port), IMAGE_ALLOWED_HOSTS="127.0.0.1", PYTHONUNBUFFERED="1"
    )
    with serving(environment) as printed:
        match = re.search(r"^RunPod API: (http://\S+)/v2/local$", printed, re.MULTILINE)
        assert match, f"the stack did not come up:\n{printed}"
        yield Stack(match[1], f"http://127.0.0.1:{engine_port}", printed)


@pytest.fixture(scope="session")
def http_url(stack: Stack) -> Iterator[str]:
    """A load-balancing endpoint of two workers that answer HTTP, with the engine of `stack`."""
    environment = clean_environment(
        INFINITY_URL=stack.engine_url, PYTHONUNBUFFERED="1", **demo_settings()
    )
    with serving(environment, "--type", "load-balancing", "--workers", "2") as printed:
        match = re.search(r"^OpenAI API: (http://\S+)/v1$", printed, re.MULTILINE)
        assert match, f"the endpoint did not come up:\n{printed}"
        yield match[1]
