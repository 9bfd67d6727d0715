"""From a process's start to an answer: the engine alone, and through the worker, in turn.

Nothing is asked of the worker itself: its engine is watched from outside, and its first job waits
at the edge from the beginning, as it does on the platform.
"""

import asyncio
import contextlib
import socket
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import aiohttp
import psutil

from bench.measuring_edge import ENDPOINT, MeasuringEdge
from bench.processes import ProcessFailedError, Program, clean_environment
from bench.workload import Workload, WrongAnswerError
from infinity_worker.demo.models import TEXT_MODEL, demo_settings
from infinity_worker.edge.workers import worker_environment
from infinity_worker.engine import HOST, engine_command, engine_environment
from infinity_worker.settings import Settings

_READY_S = 180.0
_POLL_S = 0.02
_TARGET = 1.1


@dataclass(frozen=True)
class Start:
    """Seconds from a process's start.

    Attributes:
        engine_started: until the engine's process began; 0 where it is the process itself.
        engine_ready: until the engine listened, which it does when its models are loaded.
        answer: until the first answer was there.
    """

    engine_started: float
    engine_ready: float
    answer: float


async def run_cold_start(rounds: int = 3) -> Mapping[str, float]:
    """Start each in turn; what comes first is not counted: it fills the disk's cache.

    Returns:
        Named figures, medians of the rounds, in seconds.

    Raises:
        ProcessFailedError: a process ended, or gave no answer in time.
        WrongAnswerError: the worker's first answer is an error.
    """
    routes = {"defaults": _engine_alone, "alone": _engine_alone, "worker": _worker}
    starts: dict[str, list[Start]] = {name: [] for name in routes}
    for number in range(rounds + 1):
        for name, measure in routes.items():
            start = await measure(_settings(), with_defaults=name == "defaults")
            print(f"… {name}, round {number}: {start.answer:.2f} s", flush=True)
            if number:
                starts[name].append(start)
    return _figures(starts)


def _figures(starts: Mapping[str, Sequence[Start]]) -> Mapping[str, float]:
    def median(name: str, moment: str) -> float:
        return float(statistics.median(getattr(start, moment) for start in starts[name]))

    alone, worker = median("alone", "engine_ready"), median("worker", "answer")
    return {
        "infinity_emb v2 with its defaults (it warms up): ready, s": median(
            "defaults", "engine_ready"
        ),
        "infinity_emb v2 as the worker starts it, alone: ready, s": alone,
        "the same: first answer, s": median("alone", "answer"),
        "worker: its engine's process starts, s": median("worker", "engine_started"),
        "worker: its engine is ready, s": median("worker", "engine_ready"),
        "worker: first answer, s": worker,
        f"worker's first answer : engine alone ready (aim: {_TARGET})": worker / alone,
    }


def _settings() -> Settings:
    source = demo_settings()["MODEL_NAMES"].split(";")[0]
    variables = clean_environment() | {
        "MODEL_NAMES": source,
        "SERVED_MODEL_NAMES": TEXT_MODEL,
        "ENGINE_DEVICE": "cpu",
        "INFINITY_PORT": str(_free_port()),
    }
    # In the image the bytecode is there; here the first round writes it.
    variables.pop("PYTHONDONTWRITEBYTECODE", None)
    return Settings.from_env(variables)


async def _engine_alone(settings: Settings, *, with_defaults: bool) -> Start:
    port = settings.infinity_port
    command = engine_command(settings, port)
    if with_defaults:
        options = ["--served-model-name", TEXT_MODEL, "--device", "cpu", "--host", HOST]
        model = settings.models[0].source
        command = [command[0], "v2", "--model-id", model, "--port", str(port), *options]
    began = time.monotonic()
    program = Program(command, engine_environment(settings))
    try:
        ready = await _until_listening(program, port) - began
        body = {"model": TEXT_MODEL, "input": ["hello"]}
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"http://{HOST}:{port}/embeddings", json=body) as response,
        ):
            response.raise_for_status()
            await response.read()
        return Start(0.0, ready, time.monotonic() - began)
    finally:
        await program.stop()


async def _worker(settings: Settings, *, with_defaults: bool) -> Start:  # noqa: ARG001  # as above
    workload = Workload(1, model=TEXT_MODEL)
    answered: asyncio.Future[tuple[float, bytes]] = asyncio.get_running_loop().create_future()
    async with MeasuringEdge() as edge:
        environment = {**settings.environment, **worker_environment(edge.url, ENDPOINT, "cold")}
        lane = edge.open_lane("cold")
        lane.on_result = lambda _id, chunks: answered.set_result(
            (time.monotonic(), b"".join(chunks))
        )
        lane.submit("first", workload.job_inputs[0])
        began = time.monotonic()
        program = Program([sys.executable, "-m", "infinity_worker"], environment)
        try:
            ready = await _until_listening(program, settings.infinity_port) - began
            started = _first_child_age(program)
            async with asyncio.timeout(_READY_S):
                moment, posted = await answered
        except TimeoutError:
            raise ProcessFailedError(f"no answer:\n{program.last_lines()}") from None
        finally:
            await program.stop()
    if b'"embedding"' not in posted:
        raise WrongAnswerError("the first answer is not an embedding")
    return Start(started, ready, moment - began)


def _first_child_age(program: Program) -> float:
    """Seconds from a program's start to that of its first child."""
    process = psutil.Process(program.pid)
    children = [float(child.create_time()) for child in process.children()]
    return min(children) - float(process.create_time())


async def _until_listening(program: Program, port: int) -> float:
    """Wait until the port answers; the moment of it."""
    deadline = time.monotonic() + _READY_S
    while time.monotonic() < deadline and program.is_running:
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection(HOST, port)
            writer.close()
            return time.monotonic()
        await asyncio.sleep(_POLL_S)
    raise ProcessFailedError(f"the engine did not come up:\n{program.last_lines()}")


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        return int(listener.getsockname()[1])
