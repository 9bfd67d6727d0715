"""How long jobs wait when the real engine is killed, or stops, under load; and what they get."""

import asyncio
import itertools
import json
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import aiohttp
import numpy as np
import psutil

from bench.processes import Program, clean_environment
from infinity_worker.demo.models import TEXT_MODEL, demo_settings
from infinity_worker.edge.server import EdgeServer
from infinity_worker.edge.workers import worker_environment

CLIENTS = 32
ENGINE_TIMEOUT_S = 5.0
_TEXTS = [f"a text about the number {number}" for number in range(256)]
_STEADY_S = 2.0
_LONGEST_S = 240.0
_CLOSE = 1e-5


@dataclass
class _Clients:
    """Closed-loop clients of one text a job, and what became of their jobs."""

    session: aiohttp.ClientSession
    expected: list[list[float]] = field(default_factory=list)
    sent: int = 0
    right_at: list[float] = field(default_factory=list)
    wrong: int = 0
    errors: int = 0

    async def embed(self, texts: list[str]) -> list[list[float]]:
        body = {"input": {"model": TEXT_MODEL, "text": texts}}
        async with self.session.post("runsync", json=body) as response:
            output = (await response.json()).get("output") or {"data": []}
        return [entry["embedding"] for entry in output["data"]]

    async def run(self, until: asyncio.Event) -> None:
        while not until.is_set():
            at = self.sent % len(_TEXTS)
            self.sent += 1
            found = await self.embed([_TEXTS[at]])
            if not found:
                self.errors += 1
            elif np.allclose(found[0], self.expected[at], atol=_CLOSE):
                self.right_at.append(time.monotonic())
            else:
                self.wrong += 1


async def run_recovery(number: signal.Signals) -> Mapping[str, float]:
    """Send a signal to the engine while 32 clients use it.

    Returns:
        Named figures; `silence s` is from the signal to the first answer of the next engine.

    Raises:
        ProcessFailedError: the worker did not start.
    """
    sources, names = (demo_settings()[name] for name in ("MODEL_NAMES", "SERVED_MODEL_NAMES"))
    with EdgeServer() as edge:
        environment = clean_environment() | worker_environment(edge.url, "local", "w0")
        environment |= {
            "MODEL_NAMES": sources.split(";")[0],
            "SERVED_MODEL_NAMES": names.split(";")[0],
            "INFINITY_PORT": "0",
            "ENGINE_TIMEOUT": str(ENGINE_TIMEOUT_S),
        }
        worker = Program([sys.executable, "-m", "infinity_worker"], environment)
        timeout = aiohttp.ClientTimeout(total=_LONGEST_S)
        connector = aiohttp.TCPConnector(limit=0)
        try:
            async with aiohttp.ClientSession(
                f"{edge.url}/v2/local/", timeout=timeout, connector=connector
            ) as session:
                return await _measure(_Clients(session), worker, number)
        finally:
            await worker.stop()


async def _measure(
    clients: _Clients, worker: Program, number: signal.Signals
) -> Mapping[str, float]:
    clients.expected = await clients.embed(_TEXTS)
    (line,) = [line for line in worker.last_lines().splitlines() if '"cold start"' in line]
    start = json.loads(line)
    until = asyncio.Event()
    running = [asyncio.create_task(clients.run(until)) for _ in range(CLIENTS)]
    await asyncio.sleep(_STEADY_S)
    family = psutil.Process(worker.pid).children(recursive=True)
    [each for each in family if "--model-id" in each.cmdline()][-1].send_signal(number)
    signalled = time.monotonic()
    async with asyncio.timeout(_LONGEST_S):
        while len([at for at in clients.right_at if at > signalled]) < 10 * CLIENTS:  # noqa: ASYNC110  # a plain list
            await asyncio.sleep(0.1)
    until.set()
    await asyncio.gather(*running)
    after = [signalled, *(at for at in sorted(clients.right_at) if at > signalled)]
    _, back = max(itertools.pairwise(after), key=lambda pair: pair[1] - pair[0])
    return {
        "load s": start["embedding_s"] - start["engine_started_s"],
        "silence s": back - signalled,
        "jobs sent": clients.sent,
        "right answers": len(clients.right_at),
        "errors": clients.errors,
        "wrong answers": clients.wrong,
        "lost": clients.sent - len(clients.right_at) - clients.errors - clients.wrong,
    }
