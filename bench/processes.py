"""Starting and ending the measured processes, and what they cost."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from bench.measuring_edge import ENDPOINT, Lane, MeasuringEdge
from infinity_worker.edge.workers import worker_environment

# What is measured, by name: the variables that make it.
VARIANTS: Mapping[str, Mapping[str, str]] = {
    # At its best: the stock loop counts a queued job twice, and sleeps a second when it is full,
    # so it gets more slots than there are ever jobs.
    "stock": {"WORKER_JOB_LOOP": "stock", "RUNPOD_MAX_CONCURRENCY": "1000"},
    # With as many slots as the worker's default gives `ours`.
    "stock-default": {"WORKER_JOB_LOOP": "stock"},
    # As deployed: it knows the model's tokenizer, so that jobs share engine requests.
    "ours": {},
    # The same loop where jobs share nothing.
    "apart": {},
    # Not the worker at all: see bare_worker.py.
    "bare": {},
}
_ROOT = Path(__file__).resolve().parents[1]
READY_S = 60.0
_STOP_S = 1.0
_OURS = ("RUNPOD_", "INFINITY_", "MODEL_", "WORKER_", "ENGINE_", "LOG_LEVEL")


class ProcessFailedError(Exception):
    """A measured process did not start, or ended; the message quotes its last lines."""


@dataclass(frozen=True)
class Usage:
    """What a process has cost so far: CPU seconds, and memory in bytes."""

    cpu_s: float
    rss: int
    peak_rss: int


class Program:
    """A child process in a group of its own, its output in a file for when it fails."""

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], *, says: bool = False
    ) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  # closed by stop
        self._process = subprocess.Popen(
            command,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if says else self._log,
            stderr=self._log,
            start_new_session=True,
            cwd=_ROOT,
        )
        self.cost = Cost(self._process.pid)

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether the process lives."""
        return self._process.poll() is None

    async def first_line(self) -> str:
        """What the program says first.

        Raises:
            ProcessFailedError: it ended without a word.
        """
        assert self._process.stdout is not None  # noqa: S101  # narrows the type
        line = await asyncio.to_thread(self._process.stdout.readline)
        if not line:
            raise ProcessFailedError(f"it ended at once:\n{self.last_lines()}")
        return line.decode().strip()

    def last_lines(self) -> str:
        """The end of the program's output."""
        self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, self._log.tell() - 3_000))
        return self._log.read().decode(errors="replace")

    async def stop(self) -> None:
        """End the process and its children: ask, wait a little, kill."""
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            await asyncio.to_thread(self._process.wait, _STOP_S)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._log.close()


class Cost:
    """What one process costs, its children apart."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self._folder = Path("/proc") / str(pid)

    def reset_peak(self) -> None:
        """Have the peak of the memory counted from now on, where the system can."""
        with contextlib.suppress(OSError):
            (self._folder / "clear_refs").write_text("5")

    def now(self) -> Usage:
        """The cost so far."""
        times, rss = self._process.cpu_times(), int(self._process.memory_info().rss)
        return Usage(times.user + times.system, rss, max(rss, self._high_water()))

    def _high_water(self) -> int:
        with contextlib.suppress(OSError):
            for line in (self._folder / "status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
        return 0


def clean_environment() -> dict[str, str]:
    """This process's environment without what would redirect or configure a worker."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(_OURS) and not name.lower().endswith("_proxy")
    }


@asynccontextmanager
async def running_standin() -> AsyncIterator[tuple[str, Cost]]:
    """A stand-in engine.

    Yields:
        Its URL and its cost.
    """
    command = [sys.executable, "-m", "bench.standin_engine"]
    program = Program(command, clean_environment(), says=True)
    try:
        yield await program.first_line(), program.cost
    finally:
        await program.stop()


@dataclass(frozen=True)
class Worker:
    """A worker process, connected to a lane of the edge, or an HTTP server without one."""

    variant: str
    program: Program
    lane: Lane | None


@asynccontextmanager
async def running_worker(
    variant: str, edge: MeasuringEdge, engine_url: str, extra: Mapping[str, str] | None = None
) -> AsyncIterator[Worker]:
    """`python -m infinity_worker` with the SDK's loop or the project's, or the bare worker.

    Args:
        variant: one of `VARIANTS`; also the worker's id.
        edge: where it takes its jobs.
        engine_url: the engine that it asks.
        extra: more variables for it.

    Raises:
        ProcessFailedError: it ended, or asked for no job in time.
    """
    environment = clean_environment() | worker_environment(edge.url, ENDPOINT, variant)
    # Both loops log as the worker does by default.
    del environment["RUNPOD_LOG_LEVEL"]
    environment |= {"INFINITY_URL": engine_url, **VARIANTS[variant], **(extra or {})}
    command = [sys.executable, "-m", "infinity_worker"]
    if variant == "bare":
        command = [sys.executable, "-m", "bench.bare_worker", edge.url, engine_url]
    lane = edge.open_lane(variant)
    program = Program(command, environment)
    try:
        await _until_asked(lane, program)
        yield Worker(variant, program, lane)
    finally:
        await program.stop()
        edge.close_lane(variant)


async def _until_asked(lane: Lane, program: Program) -> None:
    asked = asyncio.ensure_future(lane.asked.wait())
    deadline = time.monotonic() + READY_S
    try:
        while time.monotonic() < deadline and program.is_running:
            await asyncio.wait([asked], timeout=0.1)
            if asked.done():
                return
    finally:
        asked.cancel()
    raise ProcessFailedError(f"the worker asked for no job:\n{program.last_lines()}")
