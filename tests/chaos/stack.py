"""What runs, in either mode: workers and their engines, and how to hurt them."""

import re
import socket
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

import aiohttp
import psutil

from infinity_worker.demo.models import demo_settings
from processes import TESTS, clean_environment, running, write_engine_program

MANY = "1000"
"""More restarts than there will be."""

_BACK = re.compile(r"the engine is back after ([0-9.]+) s")
_START = "cold start"
# In either of the log's forms: `"embedding_s":1.5` and `embedding_s=1.5`.
_PHASE = re.compile(r'\b(\w+_s)"?[:=]([0-9.]+)')


@dataclass(frozen=True)
class Deliveries:
    """What a queue did beside handing out each job once.

    Attributes:
        taken_twice: jobs of which the edge took more than one result.
        posted_again: results that were posted again after a broken connection.
        handed_on: how often a job was given to another worker, or again.
    """

    taken_twice: int = 0
    posted_again: int = 0
    handed_on: int = 0


@dataclass(kw_only=True)
class Stack(ABC):
    """What runs, and how to hurt it.

    Attributes:
        url: what clients' paths are relative to.
        lines: what the workers have printed.
        model: a served name.
        engine_url: where the fake engine listens.
    """

    url: str
    lines: list[str]
    model: str = "fake-text"
    engine_url: str = ""

    @abstractmethod
    def workers(self) -> list[psutil.Process]:
        """Those that run, the first one first."""

    def begin_anew(self) -> None:  # noqa: B027  # nothing to count where there is no queue
        """Count deliveries from nothing."""

    def deliveries(self) -> Deliveries | None:
        """What the queue did since then; None where there is no queue."""
        return None

    def engine(self) -> psutil.Process:
        """The engine that the first worker owns."""
        for process in self.workers()[0].children(recursive=True):
            command = process.cmdline()
            if "--model-id" in command and not any("parent_death" in word for word in command):
                return process
        raise AssertionError("there is no engine")

    async def set_engine(self, mode: str) -> None:
        """Have the fake engine behave in one of its modes from now on."""
        async with aiohttp.ClientSession() as session:
            await session.post(f"{self.engine_url}/mode/{mode}")

    def starts(self, since: int = 0) -> int:
        """How many workers have come up, told after so many lines had been printed."""
        return sum(_START in line for line in self.lines[since:])

    def first_load_s(self) -> float | None:
        """How long the engine of the first worker took to load at its start."""
        for line in self.lines:
            if _START in line:
                phases = {phase: float(moment) for phase, moment in _PHASE.findall(line)}
                if "engine_started_s" in phases:
                    return phases["embedding_s"] - phases["engine_started_s"]
        return None

    def reload_s(self, since: int) -> float | None:
        """How long the engine took to be back, told after so many lines had been printed."""
        for line in self.lines[since:]:
            if match := _BACK.search(line):
                return float(match[1])
        return None


class Start(Protocol):
    """Starts workers with these variables; quick ones have short deadlines."""

    def __call__(
        self, variables: Mapping[str, str], *, quick: bool
    ) -> AbstractAsyncContextManager[Stack]:
        """The stack, while it runs."""


@asynccontextmanager
async def real_engine(start: Start, *, quick: bool) -> AsyncIterator[Stack]:
    """One worker that owns a real engine with MiniLM."""
    demo = demo_settings()
    names = ("MODEL_NAMES", "SERVED_MODEL_NAMES")
    variables = {name: demo[name].split(";")[0] for name in names}
    variables |= {"INFINITY_PORT": "0", "ENGINE_TIMEOUT": "5", "ENGINE_MAX_RESTARTS": MANY}
    async with start(variables, quick=quick) as stack:
        stack.model = variables["SERVED_MODEL_NAMES"]
        yield stack


@asynccontextmanager
async def own_engine(start: Start, *, quick: bool) -> AsyncIterator[Stack]:
    """One worker that owns a fake engine."""
    with TemporaryDirectory() as folder, socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
        probe.close()
        variables = {
            "MODEL_NAMES": "m",
            "INFINITY_PORT": str(port),
            "ENGINE_BIN": str(write_engine_program(Path(folder))),
            "ENGINE_TIMEOUT": "1" if quick else "5",
            "ENGINE_MAX_RESTARTS": MANY,
        }
        async with start(variables, quick=quick) as stack:
            stack.engine_url = f"http://127.0.0.1:{port}"
            yield stack


@asynccontextmanager
async def shared_engine(start: Start, *, quick: bool) -> AsyncIterator[Stack]:
    """Workers that share a fake engine, which is not theirs to restart."""
    program = [sys.executable, str(TESTS / "fakes" / "fake_engine.py")]
    with running(program, clean_environment(), output=subprocess.PIPE) as engine:
        assert engine.stdout is not None
        url = engine.stdout.readline().strip()
        async with start({"INFINITY_URL": url}, quick=quick) as stack:
            stack.engine_url = url
            yield stack
