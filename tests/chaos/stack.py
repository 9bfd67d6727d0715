"""The real stack: the edge, a wire that can be cut, supervised workers, and their engines."""

import asyncio
import contextlib
import json
import re
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import aiohttp
import psutil

from fakes.tcp_proxy import TcpProxy
from infinity_worker.demo.models import demo_settings
from infinity_worker.edge.server import EdgeServer
from infinity_worker.edge.state import EdgeSettings
from infinity_worker.edge.workers import worker_environment
from infinity_worker.serve.fleet import Fleet, FleetSettings
from processes import TESTS, clean_environment, running, worker_command, write_engine_program

_TICK_S = 0.05
_MANY = "1000"
_BACK = re.compile(r"the engine is back after ([0-9.]+) s")


@dataclass
class Stack:
    """What runs, and how to hurt it.

    Attributes:
        edge: in this process.
        wire: between the edge and the workers.
        fleet: the workers.
        lines: what they have printed.
        model: a served name.
        engine_url: where the fake engine listens.
    """

    edge: EdgeServer
    wire: TcpProxy
    fleet: Fleet
    lines: list[str]
    model: str
    engine_url: str = ""

    def worker(self) -> psutil.Process:
        """The first worker."""
        process = self.fleet.slots[0].process
        assert process is not None
        return psutil.Process(process.pid)

    def engine(self) -> psutil.Process:
        """The engine that the first worker owns."""
        for process in self.worker().children(recursive=True):
            command = process.cmdline()
            if "--model-id" in command and not any("parent_death" in word for word in command):
                return process
        raise AssertionError("there is no engine")

    async def set_engine(self, mode: str) -> None:
        """Have the fake engine behave in one of its modes from now on."""
        async with aiohttp.ClientSession() as session:
            await session.post(f"{self.engine_url}/mode/{mode}")

    def handed_on(self) -> int:
        """How often the edge has given a job to another worker."""
        return self.edge.call(lambda edge: edge.queue.counts()["retried"])

    def first_load_s(self) -> float | None:
        """How long the engine of the first worker took to load at its start."""
        for line in self.lines:
            if '"cold start"' in line:
                phases: Mapping[str, float] = json.loads(line)
                if "engine_started_s" in phases:
                    return phases["embedding_s"] - phases["engine_started_s"]
        return None

    def reload_s(self, since: int) -> float | None:
        """How long the engine took to be back, told after so many lines had been printed."""
        for line in self.lines[since:]:
            if match := _BACK.search(line):
                return float(match[1])
        return None


@asynccontextmanager
async def real_engine(*, quick: bool) -> AsyncIterator[Stack]:
    """One worker that owns a real engine with MiniLM."""
    demo = demo_settings()
    names = ("MODEL_NAMES", "SERVED_MODEL_NAMES")
    variables = {name: demo[name].split(";")[0] for name in names}
    variables |= {"INFINITY_PORT": "0", "ENGINE_TIMEOUT": "5", "ENGINE_MAX_RESTARTS": _MANY}
    async with _running(variables, variables["SERVED_MODEL_NAMES"], quick=quick) as stack:
        yield stack


@asynccontextmanager
async def own_engine(*, quick: bool) -> AsyncIterator[Stack]:
    """One worker that owns a fake engine."""
    with TemporaryDirectory() as folder, socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
        probe.close()
        variables = {
            "MODEL_NAMES": "m",
            "INFINITY_PORT": str(port),
            "ENGINE_BIN": str(write_engine_program(Path(folder))),
            "ENGINE_TIMEOUT": "1" if quick else "5",
            "ENGINE_MAX_RESTARTS": _MANY,
        }
        async with _running(variables, "fake-text", quick=quick) as stack:
            stack.engine_url = f"http://127.0.0.1:{port}"
            yield stack


@asynccontextmanager
async def three_workers(*, quick: bool) -> AsyncIterator[Stack]:
    """Three workers that share a fake engine, which is not theirs to restart."""
    program = [sys.executable, str(TESTS / "fakes" / "fake_engine.py")]
    with running(program, clean_environment(), output=subprocess.PIPE) as engine:
        assert engine.stdout is not None
        url = engine.stdout.readline().strip()
        async with _running({"INFINITY_URL": url}, "fake-text", workers=3, quick=quick) as stack:
            stack.engine_url = url
            yield stack


@asynccontextmanager
async def _running(
    variables: Mapping[str, str], model: str, *, workers: int = 1, quick: bool
) -> AsyncIterator[Stack]:
    lines: list[str] = []
    ping = {"RUNPOD_PING_INTERVAL": "1000"} if quick else {}
    settings = EdgeSettings(job_unnamed_s=1.5) if quick else EdgeSettings()
    with EdgeServer(settings) as edge:
        async with TcpProxy(edge.url) as wire:

            def environment(worker_id: str) -> dict[str, str]:
                platform = worker_environment(wire.url, "local", worker_id)
                return clean_environment(**platform, **variables) | ping

            fleet = Fleet(
                edge,
                worker_command(),
                environment,
                FleetSettings(workers, restarts=int(_MANY)),
                say=lines.append,
                output=lines.append,
            )
            fleet.start()
            ticking = asyncio.create_task(_tick(fleet))
            try:
                yield Stack(edge, wire, fleet, lines, model)
            finally:
                ticking.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await ticking
                # Elsewhere: the workers go on reporting over the wire.
                await asyncio.to_thread(fleet.stop)


async def _tick(fleet: Fleet) -> None:
    # In this thread, which lasts: the workers end with the one that started them.
    while True:
        fleet.tick()
        await asyncio.sleep(_TICK_S)
