"""The whole stack, as `make serve` starts it: the real engine with both demo models, once."""

import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from processes import BOUND_S, clean_environment, running


@dataclass(frozen=True)
class Stack:
    """The running stack.

    Attributes:
        url: where its edge listens.
        banner: what it printed, once it was ready.
    """

    url: str
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


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    program = str(Path(sys.executable).parent / "infinity-worker")
    environment = clean_environment(
        INFINITY_PORT="0", IMAGE_ALLOWED_HOSTS="127.0.0.1", PYTHONUNBUFFERED="1"
    )
    command = [program, "serve", "--port", "0"]
    with running(command, environment, output=subprocess.PIPE) as process:
        assert process.stdout is not None
        lines: list[str] = []
        for line in process.stdout:
            lines.append(line)
            if line.startswith("Ctrl-C"):
                break
        printed = "".join(lines)
        match = re.search(r"^RunPod API: (http://\S+)/v2/local$", printed, re.MULTILINE)
        assert match, f"the stack did not come up:\n{printed}"
        drain = threading.Thread(target=process.stdout.read, daemon=True)
        drain.start()
        yield Stack(match[1], printed)
        process.send_signal(signal.SIGINT)
        process.wait(BOUND_S)
        drain.join(BOUND_S)
