"""HTTP mode: one worker that clients ask themselves, or several behind a load balancer."""

import asyncio
import re
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from chaos.bounds import LONGEST_S, until
from chaos.stack import Stack
from http_worker import LISTENING
from infinity_worker.serve.processes import WorkerProcess
from processes import clean_environment, worker_command

_BALANCED = re.compile(r"OpenAI API: (http://\S+)/v1")


@dataclass(kw_only=True)
class OneWorker(Stack):
    """A worker that clients ask themselves.

    Attributes:
        process: the worker.
    """

    process: WorkerProcess

    def workers(self) -> list[psutil.Process]:
        """See `Stack`."""
        return [psutil.Process(self.process.pid)]


@dataclass(kw_only=True)
class Balanced(Stack):
    """Workers behind the local load balancer.

    Attributes:
        process: `infinity-worker serve`, whose children they are.
    """

    process: WorkerProcess

    def workers(self) -> list[psutil.Process]:
        """See `Stack`."""
        children = psutil.Process(self.process.pid).children()
        return sorted(children, key=psutil.Process.create_time)


@asynccontextmanager
async def one_http_worker(variables: Mapping[str, str], *, quick: bool) -> AsyncIterator[Stack]:
    """A worker that nothing stands before."""
    own = {"WORKER_MODE": "http", "PORT": "0", "DRAIN_DELAY": "0" if quick else "1"}
    lines: list[str] = []
    async with _running(worker_command(), {**variables, **own}, lines) as process:
        url = await _told(lines, LISTENING)
        stack = OneWorker(url=f"{url}/", lines=lines, process=process)
        await until(lambda: stack.starts() > 0)
        yield stack


@asynccontextmanager
async def balanced_workers(
    count: int, variables: Mapping[str, str], *, quick: bool
) -> AsyncIterator[Stack]:
    """So many workers behind the load balancer of `infinity-worker serve`."""
    program = str(Path(sys.executable).parent / "infinity-worker")
    options = ("--type", "load-balancing", "--port", "0", "--workers", str(count))
    lines: list[str] = []
    own = {"PYTHONUNBUFFERED": "1", "DRAIN_DELAY": "1" if quick else "3"}
    async with _running([program, "serve", *options], {**variables, **own}, lines) as process:
        # It says so once all of them are healthy.
        url = await _told(lines, _BALANCED)
        yield Balanced(url=f"{url}/", lines=lines, process=process)


@asynccontextmanager
async def _running(
    command: Sequence[str], variables: Mapping[str, str], lines: list[str]
) -> AsyncIterator[WorkerProcess]:
    process = WorkerProcess(command, clean_environment(**variables), lines.append)
    try:
        yield process
        process.terminate()
        await asyncio.to_thread(process.wait, LONGEST_S)
    finally:
        process.kill()


async def _told(lines: Sequence[str], pattern: re.Pattern[str]) -> str:
    """What the pattern's group has found in a line, once there is such a line."""
    found: list[str] = []

    def look() -> bool:
        found.extend(pattern.findall("\n".join(lines)))
        return bool(found)

    await until(look)
    return found[0]
